// Exit codes, decided here and nowhere else, and what an error looks like.

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/vmdisk/vmdisk"
	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/migrate"
	"github.com/vmdisk/vmdisk/secret"
)

// The exit codes are errno, as rbd's are.
const (
	exitOK        = 0
	exitOther     = 1
	exitNotFound  = 2
	exitBusy      = 16
	exitExists    = 17
	exitBadInput  = 22
	exitNoSpace   = 28
	exitDependent = 39
	exitLeft      = 75
	exitTimeout   = 110
	exitCancelled = 130
)

// codes says which sentinel gives which code; the first that matches counts.
var codes = []struct {
	err  error
	code int
}{
	{domain.ErrPending, exitTimeout},
	{context.Canceled, exitCancelled},
	{disk.ErrBadSource, exitBadInput},
	{migrate.ErrSameHost, exitBadInput},
	{migrate.ErrUnsafe, exitBadInput},
	{disk.ErrTimeout, exitTimeout},
	{domain.ErrTimeout, exitTimeout},
	{context.DeadlineExceeded, exitTimeout},
	{disk.ErrNoSpace, exitNoSpace},
	{disk.ErrHasClones, exitDependent},
	{disk.ErrHasSnapshots, exitDependent},
	{disk.ErrExists, exitExists},
	{domain.ErrExists, exitExists},
	{domain.ErrTargetInUse, exitExists},
	{disk.ErrInUse, exitBusy},
	{disk.ErrInvalid, exitBadInput},
	{disk.ErrNotProtected, exitBadInput},
	{domain.ErrInvalid, exitBadInput},
	{domain.ErrNotRunning, exitBadInput},
	{secret.ErrNoKey, exitBadInput},
	{disk.ErrNotFound, exitNotFound},
	{domain.ErrNotFound, exitNotFound},
	{fs.ErrNotExist, exitNotFound},
}

func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	var workflow *vmdisk.Error
	if errors.As(err, &workflow) && len(workflow.Left) > 0 {
		return exitLeft
	}
	var usage usageError
	if errors.As(err, &usage) {
		return exitBadInput
	}
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return c.code
		}
	}
	return exitOther
}

// printError says what failed, then who is in the way, what was left and what to
// type next, a line each.
func printError(w io.Writer, err error) {
	var d *disk.Error
	var holders []string
	if errors.As(err, &d) {
		holders = d.Holders
	}
	message := err.Error()
	var workflow *vmdisk.Error
	if errors.As(err, &workflow) {
		// The lists are printed below, each on a line of its own.
		message = workflow.Message()
	}
	if errors.Is(err, context.Canceled) {
		message = strings.Replace(message, context.Canceled.Error(), "cancelled", 1)
	}
	if len(holders) > 0 {
		message = strings.TrimSuffix(message, " ("+strings.Join(holders, "; ")+")")
	}
	fmt.Fprintf(w, "vmdisk: %s\n", message)
	for _, h := range holders {
		fmt.Fprintf(w, "  %s\n", h)
	}
	var failed *migrate.CheckError
	if errors.As(err, &failed) && len(failed.Failed) > 1 {
		for _, c := range failed.Failed {
			fmt.Fprintf(w, "  %s: %s\n", c.Name, c.Detail)
		}
	}
	if workflow == nil {
		return
	}
	for _, l := range workflow.Left {
		fmt.Fprintf(w, "  left behind: %s\n", l)
	}
	if workflow.Next != "" {
		fmt.Fprintf(w, "  %s\n", workflow.Next)
	}
}
