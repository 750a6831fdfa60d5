// Build the page into a folder: node bundle.mjs OUT MODEL.onnx NAME=LABEL=CLIP...
// bundle.py calls it, after it has exported the model.

import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";
import zlib from "node:zlib";

const here = path.dirname(fileURLToPath(import.meta.url));
const require = createRequire(path.join(here, "denoiser", "package.json"));
const esbuild = require("esbuild");
const [out, model, ...clips] = process.argv.slice(2);

const options = {
  bundle: true,
  minify: true,
  format: "iife",
  target: ["chrome100", "firefox114", "safari16.4"],
  write: false,
  absWorkingDir: here,
  legalComments: "none",
  define: { "import.meta.url": "self.location.href" },
  logLevel: "warning",
};

/** `import text from "source:file.js"`: the bundled program as text, for a Blob. */
const source = {
  name: "source",
  setup(build) {
    build.onResolve({ filter: /^source:/ }, ({ path: name, resolveDir }) => ({
      path: path.resolve(resolveDir, name.slice("source:".length)),
      namespace: "source",
    }));
    build.onLoad({ filter: /.*/, namespace: "source" }, async ({ path: file }) => ({ contents: await bundle(file), loader: "text" }));
  },
};

async function bundle(file, plugins = []) {
  const { outputFiles } = await esbuild.build({ ...options, entryPoints: [file], plugins });
  return outputFiles[0].text;
}

const packed = (file) => zlib.gzipSync(fs.readFileSync(file), { level: 9 }).toString("base64");
const write = (name, content) => fs.writeFileSync(path.join(out, name), content);

fs.mkdirSync(out, { recursive: true });
for (const name of ["index.html", "style.css", "licences.txt"]) fs.copyFileSync(path.join(here, name), path.join(out, name));
write("page.js", await bundle(path.join(here, "page", "main.js"), [source]));

// The network and the runtime as text in a classic script: the one form that a page opened from disk can load, too.
const wasm = require.resolve("onnxruntime-web/ort-wasm-simd-threaded.wasm");
write("engine.js", `globalThis.denoiserFiles={wasm:"${packed(wasm)}",model:"${packed(model)}"};`);

const list = clips.map((clip) => {
  const [name, label, ...file] = clip.split("=");  // a folder may have the sign in its name
  return { name, label, data: fs.readFileSync(file.join("=")).toString("base64") };
});
write("clips.js", `globalThis.denoiserClips=${JSON.stringify(list)};`);
