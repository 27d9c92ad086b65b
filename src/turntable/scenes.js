// Where a page has no origin (a sandboxed frame, a file), browsers start no module worker from a blob: viser's would not
// run, which sorts splats by depth. From a data URL they start it.
if (window.origin === "null") {
  window.Worker = class extends window.Worker {
    constructor(url, options) {
      if (String(url).startsWith("blob:") && options?.type === "module") {
        const request = new XMLHttpRequest();
        request.open("GET", url, false);
        request.send();
        url = `data:text/javascript;charset=utf-8,${encodeURIComponent(request.responseText)}`;
      }
      super(url, options);
    }
  };
}
