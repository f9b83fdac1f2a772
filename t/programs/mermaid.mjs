// Parse pictures of Mermaid with its own parser, and write what each node shows.  In a
// directory with the packages mermaid and jsdom: node mermaid.mjs file …
import fs from 'fs';
import { createRequire } from 'module';
import { pathToFileURL } from 'url';

const need = createRequire(process.cwd() + '/');
const { JSDOM } = need('jsdom');
const dom = new JSDOM('<!DOCTYPE html><body></body>');
globalThis.window = dom.window;
globalThis.document = dom.window.document;
const path = process.cwd() + '/node_modules/mermaid/dist/mermaid.core.mjs';
const mermaid = (await import(pathToFileURL(path))).default;

mermaid.initialize({ startOnLoad: false });
for (const file of process.argv.slice(2)) {
  const text = fs.readFileSync(file, 'utf8');
  await mermaid.parse(text);
  const diagram = await mermaid.mermaidAPI.getDiagramFromText(text);
  for (const [, node] of diagram.db.getVertices()) {
    // Mermaid's own marks for entities, and then those of HTML
    const html = node.text.replace(/ﬂ°°(\d+)¶ß/g, '&#$1;').replace(/ﬂ°(\w+)¶ß/g, '&$1;').replace(/<br>/g, '\n');
    const area = document.createElement('textarea');
    area.innerHTML = html;
    process.stdout.write(JSON.stringify(area.value) + '\n');
  }
}
