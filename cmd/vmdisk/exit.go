// Exit codes, decided here and nowhere else, and what an error looks like.

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
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
	{migrate.ErrAborted, exitCancelled},
	{migrate.ErrNone, exitNotFound},
	{migrate.ErrPostcopy, exitBusy},
	{disk.ErrBadSource, exitBadInput},
	{migrate.ErrSameHost, exitBadInput},
	{migrate.ErrUnsafe, exitBadInput},
	{migrate.ErrRunning, exitBadInput},
	{migrate.ErrStalled, exitTimeout},
	{disk.ErrOriginAway, exitTimeout},
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
	{disk.ErrNotRaw, exitBadInput},
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
	// Of several failures the first counts, unless one has left something. What did
	// not answer leaves something for a repair to finish, which is no surprise.
	for _, e := range flatten(err) {
		var workflow *vmdisk.Error
		if errors.As(e, &workflow) && len(workflow.Left) > 0 && !errors.Is(e, disk.ErrTimeout) && !errors.Is(e, domain.ErrTimeout) {
			return exitLeft
		}
	}
	err = flatten(err)[0]
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

// failures are those of several machines, one each.
type failures []error

func (f failures) Error() string { return errors.Join(f...).Error() }

func (f failures) Unwrap() []error { return f }

// orNil is nil if there was none.
func (f failures) orNil() error {
	f = slices.DeleteFunc(f, func(err error) bool { return err == nil })
	if len(f) == 0 {
		return nil
	}
	return f
}

// summed are failures and at their end how much of all they are, which by itself would
// print as the first of them, whose error it wraps.
func summed(errs []error, sum error) error {
	return append(slices.Clone(failures(errs)), errors.New(sum.Error()))
}

// flatten is each failure by itself.
func flatten(err error) []error {
	var several failures
	if errors.As(err, &several) {
		return several
	}
	return []error{err}
}

// printError says of each failure what failed, then who is in the way, what was
// left and what to type next, a line each.
func printError(w io.Writer, err error) {
	for _, e := range flatten(err) {
		printOne(w, e)
	}
}

func printOne(w io.Writer, err error) {
	message := err.Error()
	var workflow *vmdisk.Error
	if errors.As(err, &workflow) {
		message = workflow.Message() // the lists are printed below
	}
	if errors.Is(err, context.Canceled) {
		message = strings.Replace(message, context.Canceled.Error(), "cancelled", 1)
	}
	message, answers := unfit(err, message)
	var d *disk.Error
	var holders []string
	if errors.As(err, &d) && len(d.Holders) > 0 {
		holders = d.Holders
		message = strings.TrimSuffix(message, " ("+strings.Join(holders, "; ")+")")
	}
	fmt.Fprintf(w, "vmdisk: %s\n", message)
	for _, h := range append(holders, answers...) {
		fmt.Fprintf(w, "  %s\n", h)
	}
	if workflow == nil {
		return
	}
	for _, l := range workflow.Left {
		fmt.Fprintf(w, "  left behind: %s\n", l)
	}
	if workflow.State != "" {
		fmt.Fprintf(w, "  %s\n", workflow.State)
	}
	if workflow.Next != "" {
		fmt.Fprintf(w, "  %s\n", workflow.Next)
	}
}
