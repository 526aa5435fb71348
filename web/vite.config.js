// Everything goes into one file, which the server ships as it is: no other is ever asked for.
import { defineConfig } from "vite";

const oneFile = {
  name: "one-file",
  enforce: "post",
  generateBundle(_, bundle) {
    const html = bundle["index.html"];
    let text = html.source.replace(/\s*<(script|link)[^>]*crossorigin[^>]*>(<\/script>)?/g, "");
    for (const [name, part] of Object.entries(bundle)) {
      if (part === html) continue;
      // The functions keep "$&" and its like in the code as they are.
      if (name.endsWith(".css")) {
        text = text.replace("</head>", () => `<style>${part.source.trim()}</style>\n</head>`);
      } else {
        const code = part.code.trim().replaceAll("</script", "<\\/script");
        text = text.replace("</body>", () => `<script type="module">${code}</script>\n</body>`);
      }
      delete bundle[name];
    }
    html.source = text;
    html.fileName = "page.html";
  },
};

export default defineConfig({
  plugins: [oneFile],
  esbuild: { jsx: "automatic", jsxImportSource: "preact", legalComments: "none" },
  build: {
    target: "es2022",
    outDir: process.env.PAGE_DIR ?? "../src/tunelab/desk",
    emptyOutDir: false,
    modulePreload: false,
    cssCodeSplit: false,
    assetsInlineLimit: Infinity,
  },
});
