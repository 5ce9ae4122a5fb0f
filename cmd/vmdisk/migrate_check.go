// vmdisk migrate --check

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/vmdisk/vmdisk"
	"github.com/vmdisk/vmdisk/migrate"
)

func runCheck(ctx context.Context, c *command, h *vmdisk.Host, vm, dest string, o vmdisk.MigrateOptions) error {
	found, err := h.CheckMigration(ctx, vm, dest, o)
	var failed *migrate.CheckError
	if err != nil && !errors.As(err, &failed) {
		return err
	}
	if err := c.ui.table(checksOf(found), "no checks", "CHECK\tFIT\tDETAIL", checkRows(found.Checks)); err != nil {
		return err
	}
	if f := found.Forecast; f != nil {
		said := "forecast: " + f.String()
		if advice := f.Advice(); advice != "" {
			said += "\n  " + advice
		}
		if err := c.ui.text(said); err != nil {
			return err
		}
	}
	if err != nil {
		return shownError{err}
	}
	return c.ui.text(vm + " can move to " + dest)
}

// checkRows are the answers, each with its cure below it.
func checkRows(checks []migrate.Check) []string {
	var rows []string
	for _, check := range checks {
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s", check.Name, check.Verdict(), check.Detail))
		if check.Cure != "" {
			rows = append(rows, "\t\t  "+check.Cure)
		}
	}
	return rows
}

// shownError is a preflight's whose answers are on the screen already.
type shownError struct{ error }

func (e shownError) Unwrap() error { return e.error }

// unfit is the message of a preflight's error without its answers, and those, each
// with its cure on a line of its own.
func unfit(err error, message string) (short string, answers []string) {
	var failed *migrate.CheckError
	if !errors.As(err, &failed) {
		return message, nil
	}
	short = strings.Replace(message, failed.Error(), failed.Short(), 1)
	var shown shownError
	if errors.As(err, &shown) {
		return short, nil
	}
	for _, c := range failed.Failed {
		answers = append(answers, c.Detail)
		if c.Cure != "" {
			answers = append(answers, "  "+c.Cure)
		}
	}
	return short, answers
}
