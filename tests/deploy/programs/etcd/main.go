// The etcd server. Its own main package has replaced modules, which a build from outside cannot use.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
