//go:build tools

// Package controlplane pins the programs that the tests start. It is never built itself: the imports keep
// `go mod tidy` from dropping them.
package controlplane

import (
	_ "go.etcd.io/etcd/server/v3"
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kubectl"
)
