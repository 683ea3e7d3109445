//go:build tools

// Package helm pins the program that the tests of the charts run. It is never built itself: the import keeps
// `go mod tidy` from dropping it.
package helm

import _ "helm.sh/helm/v4/cmd/helm"
