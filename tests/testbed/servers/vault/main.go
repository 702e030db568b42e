// Vault, built from its Go module: Debian has no package of it.
//
// The directive below is for a dependency that parses a CA with a negative serial
// number while it initialises, and panics when Go refuses that.

//go:debug x509negativeserial=1
package main

import (
	"os"

	"github.com/hashicorp/vault/command"
)

func main() {
	os.Exit(command.Run(os.Args[1:]))
}
