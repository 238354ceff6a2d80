// Holds manifests (a JSON array on standard input) against the OpenAPI schemas of Kubernetes, KEDA
// and the Prometheus operator; a line for each error, exit code 1 where there is one.
import { readFileSync } from "node:fs";

const OPERATORS = {
  "keda.sh": "@kubernetes-models/keda",
  "monitoring.coreos.com": "@kubernetes-models/prometheus-operator",
};

async function model({ apiVersion, kind }) {
  const group = apiVersion.split("/")[0];
  const found = await import(`${OPERATORS[group] ?? "kubernetes-models"}/${apiVersion}`);
  if (found[kind] === undefined) throw new Error(`there is no ${kind} in ${apiVersion}`);
  return found[kind];
}

for (const manifest of JSON.parse(readFileSync(0, "utf8"))) {
  try {
    const Model = await model(manifest);
    new Model(manifest).validate();
  } catch (error) {
    console.error(`${manifest.kind} ${manifest.metadata?.name}: ${error.message}`);
    process.exitCode = 1;
  }
}
