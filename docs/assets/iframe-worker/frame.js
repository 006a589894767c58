// From iframe-worker 1.0.4, where the frame holds this itself; a file meets the site's policy.
"use strict";
{
  const worker = document.currentScript.dataset.worker;
  window.postMessage = (message, target) => parent.postMessage(message, target || "*");
  window.importScripts = (...addresses) =>
    addresses.reduce(
      (before, address) =>
        before.then(
          () =>
            new Promise((loaded) => {
              const script = document.createElement("script");
              script.src = address;
              script.onload = loaded;
              document.body.appendChild(script);
            }),
        ),
      Promise.resolve(),
    );
  addEventListener("error", ({ error }) =>
    parent.dispatchEvent(new ErrorEvent("error", { filename: worker, error })),
  );
}
