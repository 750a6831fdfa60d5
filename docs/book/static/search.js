// From disk a page may not fetch another one, and the search wants to quote from the pages that it lists. So there it
// reads their texts from search-texts.js, which a script element may load. On a server this file does nothing.

if (location.protocol === "file:" && document.querySelector("#search-results")) {
  const root = new URL(document.documentElement.dataset.content_root, location.href);
  const loaded = new Promise((resolve, reject) => {
    const script = document.createElement("script");
    Object.assign(script, { src: new URL("_static/search-texts.js", root), onload: resolve, onerror: reject });
    document.head.append(script);
  });
  const fetchPage = globalThis.fetch;
  globalThis.fetch = async (address, ...options) => {
    const { href } = new URL(address, location.href);
    const name = href.startsWith(root.href) ? href.slice(root.href.length).replace(/\.html$/, "") : null;
    await loaded;
    const text = globalThis.searchTexts[name];
    if (text === undefined) return fetchPage(address, ...options);
    const main = document.createElement("div");
    main.setAttribute("role", "main");
    main.textContent = text;
    return new Response(main.outerHTML);
  };
}
