// vmdisk drain

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"github.com/vmdisk/vmdisk"
	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
)

func drainCommand() *cli.Command {
	return &cli.Command{
		Name: "drain", Usage: "move all machines of a host to others", ArgsUsage: "HOST",
		Description: `HOST and the destinations are host names or libvirt URIs, as DEST of migrate.
Machines that are quickly moved go first, those that write faster than they can be
copied last; each goes where the most memory is left. Ctrl-C aborts what is under
way; the same command goes on with what is left. How each is moved is said as for
migrate; see vmdisk migrate --help.

  vmdisk drain compute1 --to compute2,compute3 --dry-run    what would go where
  vmdisk drain compute1 --to compute2,compute3 --workers 4`,
		Flags: append([]cli.Flag{
			&cli.StringSliceFlag{Name: "to", Usage: "the `HOSTS` that take them, separated by commas"},
			&cli.IntFlag{Name: "workers", Usage: "move `N` at once", Value: 2},
			&cli.BoolFlag{Name: "dry-run", Usage: "only say what would go where", DisableDefaultText: true},
			&cli.BoolFlag{Name: "no-check", Usage: "do not ask whether a destination is fit", DisableDefaultText: true},
			&cli.BoolFlag{Name: "fix", Usage: "cure what can be: networks missing there, media", DisableDefaultText: true},
			&cli.BoolFlag{Name: "no-forecast", Usage: "do not measure how much a machine writes", DisableDefaultText: true},
		}, policyFlags()...),
		Action: action(runDrain),
	}
}

func runDrain(ctx context.Context, c *command) error {
	args, err := c.arguments("HOST")
	if err != nil {
		return err
	}
	o := vmdisk.DrainOptions{To: c.StringSlice("to"), Workers: c.Int("workers"), DryRun: c.Bool("dry-run")}
	switch {
	case len(o.To) == 0:
		return usagef("--to HOSTS is missing, where the machines are to go")
	case o.Workers < 1:
		return usagef("--workers %d is not positive", o.Workers)
	}
	o.Migrate = vmdisk.MigrateOptions{NoCheck: c.Bool("no-check"), NoForecast: c.Bool("no-forecast"), Fix: c.Bool("fix")}
	if o.Migrate.Policy, err = c.policy(); err != nil {
		return err
	}
	h, err := c.openOn(ctx, args[0])
	if err != nil {
		return err
	}
	c.ui.main, c.ui.part = "drain", "move"
	begin := time.Now()
	all, failure := h.Drain(ctx, o)
	if closing := h.Close(); failure == nil {
		failure = closing
	}
	var stay *vmdisk.DrainError
	if failure != nil && !errors.As(failure, &stay) {
		return failure
	}
	if err := printDrain(c.ui, all, o.DryRun); err != nil {
		return err
	}
	if stay != nil {
		return summed(stay.Errs, stay)
	}
	if o.DryRun || len(all) == 0 {
		return nil
	}
	return c.ui.text(fmt.Sprintf("%s is empty: %d moved in %s", all[0].Migration.From, len(all), strings.TrimSpace(duration(time.Since(begin)))))
}

// openOn opens a host by name or URI; the one that --connect leads to is itself.
func (c *command) openOn(ctx context.Context, host string) (*vmdisk.Host, error) {
	h, err := c.open(ctx)
	if err != nil {
		return nil, err
	}
	if name, err := h.Name(ctx); err == nil && name == host {
		return h, nil
	}
	if err := h.Close(); err != nil {
		return nil, err
	}
	if c.set.Connect, err = domain.RemoteURI(c.set.Connect, host); err != nil {
		return nil, err
	}
	return c.open(ctx)
}

// drainedLine is what came of one machine, as JSON.
type drainedLine struct {
	VM       string    `json:"vm"`
	UUID     string    `json:"uuid"`
	State    string    `json:"state"`
	Memory   int64     `json:"memory"`
	Moved    bool      `json:"moved"`
	To       string    `json:"to,omitempty"`
	Error    string    `json:"error,omitempty"`
	Forecast *forecast `json:"forecast,omitempty"`
	*migration
}

func printDrain(u *ui, all []vmdisk.Drained, dry bool) error {
	lines := []drainedLine{}
	var rows []string
	heading := "VM\tMEMORY\tTO\tTIME\tDOWNTIME\tSENT"
	if dry {
		heading = "VM\tMEMORY\tTO\tFORECAST"
	}
	for _, m := range all {
		rows = append(rows, drainRow(m, dry))
		line := drainedLine{
			VM: m.VM, UUID: m.UUID, State: m.State, Memory: m.Memory, Moved: m.Moved(), To: m.To,
			Forecast: forecastOf(cmp.Or(m.Migration.Forecast, m.Forecast)), // hides the embedded one's
		}
		if m.Err != nil {
			line.Error = m.Err.Error()
		}
		if m.Moved() {
			moved := migrationOf(m.Migration)
			line.migration = &moved
		}
		lines = append(lines, line)
	}
	return u.table(lines, "no machines", heading, rows)
}

func drainRow(m vmdisk.Drained, dry bool) string {
	cells := []string{m.VM, disk.FormatSize(m.Memory), m.To}
	switch r := m.Migration; {
	case m.To == "":
		cells[2] = "stays"
	case dry && m.Forecast == nil:
		cells = append(cells, m.State)
	case dry:
		cells = append(cells, m.Forecast.String())
	case m.State == "shut off":
		cells = append(cells, duration(r.Elapsed), "shut off", "-")
	default:
		cells = append(cells, duration(r.Elapsed), fmt.Sprintf("%d ms", r.Downtime.Milliseconds()), disk.FormatSize(r.Transferred))
	}
	return strings.Join(cells, "\t")
}
