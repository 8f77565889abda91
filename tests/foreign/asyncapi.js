// Validates an AsyncAPI document with the parser of those who write the standard. Prints what is wrong.
import parser from "@asyncapi/parser";

const [url] = process.argv.slice(2);
const text = await (await fetch(url)).text();
const { document, diagnostics } = await new parser.Parser().parse(text);
const errors = diagnostics.filter(({ severity }) => severity === 0);
console.log(JSON.stringify({ version: document?.version(), errors: errors.map(({ path, message }) => [path.join("."), message]) }));
