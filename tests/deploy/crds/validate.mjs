// Custom resources (JSON, standard input) against their CRDs: by the schema, and, since a schema lets unknown fields
// pass, as TypeScript literals, of which the compiler refuses those. Prints one line for each thing that is wrong.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { EC2NodeClass } from "@kubernetes-models/karpenter/karpenter.k8s.aws/v1";
import { NodePool } from "@kubernetes-models/karpenter/karpenter.sh/v1";
import { ScaledObject } from "@kubernetes-models/keda/keda.sh/v1alpha1";
import { ServiceMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";
import ts from "typescript";

const models = {
  EC2NodeClass: [EC2NodeClass, "@kubernetes-models/karpenter/karpenter.k8s.aws/v1"],
  NodePool: [NodePool, "@kubernetes-models/karpenter/karpenter.sh/v1"],
  ScaledObject: [ScaledObject, "@kubernetes-models/keda/keda.sh/v1alpha1"],
  ServiceMonitor: [ServiceMonitor, "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1"],
};
const documents = JSON.parse(readFileSync(0, "utf8"));

for (const { apiVersion, kind, ...rest } of documents) {
  const [Model, path] = models[kind];
  if (!path.endsWith(apiVersion)) console.log(`${kind}: ${apiVersion} is not the version of ${path}`);
  try {
    new Model(rest).validate();
  } catch (error) {
    console.log(`${kind}: ${error.message}`);
  }
}

const source = [
  ...Object.entries(models).map(([kind, [, path]]) => `import { ${kind} } from "${path}";`),
  ...documents.map(({ apiVersion, kind, ...rest }) => `new ${kind}(${JSON.stringify(rest, null, 1)});`),
].join("\n");
const file = fileURLToPath(new URL("documents.ts", import.meta.url)); // in memory alone
const options = {
  module: ts.ModuleKind.NodeNext,
  moduleResolution: ts.ModuleResolutionKind.NodeNext,
  noEmit: true,
  skipLibCheck: true,
  strict: true,
  types: [],
};
const host = ts.createCompilerHost(options);
const { fileExists, getSourceFile, readFile } = host;
host.fileExists = (name) => name === file || fileExists(name);
host.readFile = (name) => (name === file ? source : readFile(name));
host.getSourceFile = (name, version, ...more) =>
  name === file ? ts.createSourceFile(name, source, version) : getSourceFile(name, version, ...more);
for (const each of ts.getPreEmitDiagnostics(ts.createProgram([file], options, host)))
  console.log(ts.flattenDiagnosticMessageText(each.messageText, " "));
