package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/hauberk-mesh/hauberk/sidecar"
	"github.com/hauberk-mesh/hauberk/sidecar/config"
)

// validate checks a bootstrap as far as can be without serving it.
func validate(args []string) error {
	o, err := parse(args, os.LookupEnv)
	if err != nil {
		return err
	}
	if o.bootstrap == "" {
		return errors.New("validate needs --bootstrap FILE")
	}
	b, err := config.LoadBootstrap(o.bootstrap)
	if err != nil {
		return err
	}
	if err := sidecar.Check(b); err != nil {
		return fmt.Errorf("%s: %w", o.bootstrap, err)
	}
	fmt.Printf("%s: ok, %d listeners and %d clusters\n", o.bootstrap, len(b.Listeners), len(b.Clusters))
	return nil
}
