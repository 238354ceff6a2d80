// Renders a chart as Helm does, with Helm's own engine, and reads each manifest as strictly as an
// API server can be asked to: an unknown or doubled field is an error.  Talks to no cluster.
//
//	chart DIRECTORY < {"release": ..., "namespace": ..., "values": {...}}
//
// prints {"manifests": {file: [object, ...]}, "notes": text}, or ends with 1 and the reason.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

type request struct {
	Release   string         `json:"release"`
	Namespace string         `json:"namespace"`
	Values    map[string]any `json:"values"`
}

type answer struct {
	Manifests map[string][]json.RawMessage `json:"manifests"`
	Notes     string                       `json:"notes"`
}

var separator = regexp.MustCompile(`(?m)^---\s*$`)

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(directory string) error {
	var asked request
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		return err
	}
	rendered, err := render(directory, asked)
	if err != nil {
		return err
	}
	made := answer{Manifests: map[string][]json.RawMessage{}}
	for file, text := range rendered {
		if strings.HasSuffix(file, "NOTES.txt") {
			made.Notes = text
			continue
		}
		objects, err := read(text)
		if err != nil {
			return fmt.Errorf("%s: %w\n%s", file, err, text)
		}
		if len(objects) > 0 {
			made.Manifests[file[strings.LastIndex(file, "/")+1:]] = objects
		}
	}
	return json.NewEncoder(os.Stdout).Encode(made)
}

func render(directory string, asked request) (map[string]string, error) {
	chart, err := loader.Load(directory)
	if err != nil {
		return nil, err
	}
	if err := chart.Validate(); err != nil {
		return nil, err
	}
	release := chartutil.ReleaseOptions{
		Name: asked.Release, Namespace: asked.Namespace, Revision: 1, IsInstall: true,
	}
	values, err := chartutil.ToRenderValues(chart, asked.Values, release, nil)
	if err != nil {
		return nil, err
	}
	return engine.Engine{Strict: true}.Render(chart, values)
}

func read(text string) ([]json.RawMessage, error) {
	strict := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict)
	var objects []json.RawMessage
	for _, document := range separator.Split(text, -1) {
		if strings.TrimSpace(document) == "" {
			continue
		}
		object, err := yaml.YAMLToJSONStrict([]byte(document))
		if err != nil {
			return nil, err
		}
		// What is not Kubernetes' own (a custom resource) has its own check.
		_, _, err = strict.UniversalDeserializer().Decode([]byte(document), nil, nil)
		if err != nil && !runtime.IsNotRegisteredError(err) {
			return nil, err
		}
		objects = append(objects, object)
	}
	return objects, nil
}
