// vmdisk migrate --check

package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/vmdisk/vmdisk"
	"github.com/vmdisk/vmdisk/migrate"
)

func runCheck(ctx context.Context, c *command, h *vmdisk.Host, vm, dest string) error {
	checks, err := h.CheckMigration(ctx, vm, dest)
	var failed *migrate.CheckError
	if err != nil && !errors.As(err, &failed) {
		return err
	}
	var rows []string
	for _, check := range checks {
		verdict := "ok"
		if !check.OK {
			verdict = "NO"
		}
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s", check.Name, verdict, check.Detail))
	}
	if err := c.ui.table(checks, "no checks", "CHECK\tFIT\tDETAIL", rows); err != nil {
		return err
	}
	return err
}
