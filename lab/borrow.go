// Using a lab that is up, or one for the time of a test run.

package lab

import (
	"context"
	"fmt"
	"os"
)

// borrowedHosts is as many as the tests need that move machines off a host, with
// a choice where to.
const borrowedHosts = 3

// EnvDir is the environment variable that names the folder of a lab to use.
const EnvDir = "VMDISK_LAB"

// Borrow is the lab in the folder that VMDISK_LAB names, which stays up when done
// is called; without that, a new one, which done takes down. So one lab serves the
// tests of many packages, and those of one package need nothing.
func Borrow(ctx context.Context) (l *Lab, done func() error, err error) {
	if dir := os.Getenv(EnvDir); dir != "" {
		l, err = Open(dir)
		return l, func() error { return nil }, err
	}
	l, err = Up(ctx, Options{Dir: fmt.Sprintf("/var/tmp/lab-%d", os.Getpid()), Hosts: borrowedHosts, Hurried: true})
	if err != nil {
		return nil, nil, err
	}
	return l, func() error { return l.Down(context.WithoutCancel(ctx)) }, nil
}
