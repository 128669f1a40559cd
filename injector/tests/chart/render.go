// Renders the templates of a chart as Helm does: Go's text/template, and of Helm's own functions the
// three that the chart uses. Arguments: the chart's directory, all values as JSON.
package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"text/template"
)

func main() {
	var values map[string]any
	must(json.Unmarshal([]byte(os.Args[2]), &values))
	functions := template.FuncMap{
		"join": func(separator string, entries []any) string {
			texts := make([]string, 0, len(entries))
			for _, entry := range entries {
				texts = append(texts, fmt.Sprint(entry))
			}
			return strings.Join(texts, separator)
		},
		"sha256sum": func(text string) string {
			return fmt.Sprintf("%x", sha256.Sum256([]byte(text)))
		},
		"trunc": func(length int, text string) string { return text[:length] },
	}
	files, err := filepath.Glob(filepath.Join(os.Args[1], "templates", "*.yaml"))
	must(err)
	sort.Strings(files)
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(err)
		made, err := template.New(file).Option("missingkey=error").Funcs(functions).Parse(string(text))
		must(err)
		must(made.Execute(os.Stdout, map[string]any{"Values": values}))
		fmt.Println()
	}
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
