// Command coredns is CoreDNS with the plugins that tests/deploy/discovery needs: with all of them it takes minutes to build.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/hosts"
)

func main() {
	dnsserver.Directives = []string{"bind", "errors", "hosts"}
	coremain.Run()
}
