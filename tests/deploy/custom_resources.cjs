// Checks custom resources by the schemas of their definitions: `node custom_resources.cjs FOLDER < [{package, object}…]`.
//
// FOLDER holds the packages @kubernetes-models/… that scripts/install --deploy installs. Prints a JSON list with a list of errors for each. The
// packages' validators accept keys that they do not know, so every key is looked up in the type's declaration as well.
const fs = require("fs");
const path = require("path");

const folder = path.resolve(process.argv[2], "node_modules", "@kubernetes-models");
// Below these keys everything is the user's.
const FREE = new Set(["labels", "annotations", "selector", "taints", "metadata", "nodeSelector", "tags", "limits", "selectorTerms"]);

function keys(value, found = new Set()) {
  if (Array.isArray(value)) value.forEach((item) => keys(item, found));
  else if (value && typeof value === "object")
    for (const [key, inner] of Object.entries(value)) {
      found.add(key);
      if (!FREE.has(key)) keys(inner, found);
    }
  return found;
}

// All declarations of a package: a resource's may be spread over many files.
const declarations = new Map();
function declared(name) {
  if (!declarations.has(name)) {
    const files = fs.readdirSync(path.join(folder, name), { recursive: true });
    const wanted = files.filter((file) => file.endsWith(".d.ts") && !file.includes("node_modules"));
    declarations.set(name, wanted.map((file) => fs.readFileSync(path.join(folder, name, file), "utf8")).join("\n"));
  }
  return declarations.get(name);
}

const answers = [];
for (const { package: name, object } of JSON.parse(fs.readFileSync(0, "utf8"))) {
  const [group, version] = object.apiVersion.split("/");
  const file = path.join(folder, name, group, version, object.kind);
  const errors = [];
  try {
    new (require(`${file}.js`)[object.kind])(object).validate();
  } catch (error) {
    errors.push(error.message);
  }
  for (const key of keys(object.spec))
    if (!new RegExp(`"${key}"\\??:`).test(declared(name))) errors.push(`unknown key ${key}`);
  answers.push(errors);
}
process.stdout.write(JSON.stringify(answers));
