// vmdisk migrate --status and --abort: of a migration that another command runs

package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"github.com/vmdisk/vmdisk"
	"github.com/vmdisk/vmdisk/migrate"
)

func migrateStatusFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "status", Usage: "say how far VM is on its way; without DEST", DisableDefaultText: true},
		&cli.BoolFlag{Name: "abort", Usage: "abort its move; without DEST", DisableDefaultText: true},
	}
}

// migrateStatus is what scripts get.
type migrateStatus struct {
	VM        string            `json:"vm"`
	UUID      string            `json:"uuid"`
	UnderWay  bool              `json:"under_way"`
	Watched   bool              `json:"watched"` // a command sees to its end
	Host      string            `json:"host"`    // where its guest is
	State     string            `json:"state"`
	From      string            `json:"from,omitempty"`
	To        string            `json:"to,omitempty"`
	Phase     string            `json:"phase,omitempty"`
	Progress  *migrationFigures `json:"progress,omitempty"`
	Operation *vmdisk.Operation `json:"operation,omitempty"`
}

// migrationFigures are a migration's progress for scripts: bytes, and bytes a second.
type migrationFigures struct {
	Phase     migrate.Phase `json:"phase"`
	Percent   int           `json:"percent"`
	Total     int64         `json:"memory"`
	Remaining int64         `json:"remaining"`
	Sent      int64         `json:"sent"`
	Rate      int64         `json:"rate"`
	Dirty     int64         `json:"dirty_rate"`
	Elapsed   int64         `json:"elapsed_ms"`
	Left      int64         `json:"left_ms,omitempty"` // not there if it is not known
}

func figuresOf(p *migrate.Progress) *migrationFigures {
	if p == nil {
		return nil
	}
	return &migrationFigures{p.Phase, p.Percent(), p.Total, p.Remaining, p.Done, p.Rate, p.Dirty,
		p.Elapsed.Milliseconds(), p.Left.Milliseconds()}
}

func runMigrateStatus(ctx context.Context, c *command, h *vmdisk.Host, abort bool) error {
	args, err := c.arguments("VM")
	if err != nil {
		return err
	}
	ask := h.MigrationStatus
	if abort {
		ask = h.AbortMigration
	}
	s, err := ask(ctx, args[0])
	if err != nil {
		return err
	}
	value := migrateStatus{s.VM, s.UUID, s.UnderWay, s.Watched(), s.Host, s.State, s.From, s.To, s.Phase(), figuresOf(s.Progress), s.Operation}
	if abort {
		return c.ui.result(value, "aborted: %s is %s on %s", s.VM, s.State, s.Host)
	}
	text, next := describeStatus(s)
	for _, line := range text {
		if err := c.ui.text(line); err != nil {
			return err
		}
	}
	return c.ui.result(value, "%s", next)
}

// describeStatus says it for people, and what to type.
func describeStatus(s vmdisk.MigrationStatus) (text []string, next string) {
	if !s.UnderWay {
		return []string{fmt.Sprintf("no migration of %s is under way: it is %s on %s", s.VM, s.State, s.Host)},
			fmt.Sprintf("to begin one:  vmdisk migrate %s DEST", s.VM)
	}
	way := s.VM + " moves from " + s.From
	if s.To != "" {
		way += " to " + s.To
	}
	row := func(name, format string, args ...any) {
		text = append(text, fmt.Sprintf("  %-8s "+format, append([]any{name}, args...)...))
	}
	text = append(text, way)
	if p := s.Progress; p == nil {
		row("phase", "%s", s.Phase())
	} else {
		row("phase", "%s, %d %% for %s", p.Phase, p.Percent(), strings.TrimSpace(duration(p.Elapsed)))
		row("memory", "%s, %s to go", portion(p.Total-p.Remaining, p.Total), brief(p.Remaining))
		row("rate", "%s/s, dirty %s/s", brief(p.Rate), brief(p.Dirty))
		if p.Left > 0 {
			row("left", "about %s", strings.TrimSpace(duration(p.Left)))
		}
	}
	row("guest", "%s on %s", s.State, s.Host)
	abort := fmt.Sprintf("to abort it:  vmdisk migrate --abort %s", s.VM)
	o := s.Operation
	if o == nil {
		row("by", "nobody whom vmdisk knows: libvirt was asked by another tool")
		return text, abort
	}
	row("by", "vmdisk, pid %d on %s", o.Holder.PID, o.Holder.Host)
	row("since", "%s", o.Started.Local().Format(time.DateTime))
	switch o.State {
	case vmdisk.Silent:
		row("watched", "it does not answer; the hosts go on")
	case vmdisk.Interrupted:
		row("watched", "not any more: that process is gone; the hosts go on")
		return text, fmt.Sprintf("to wait for its end:  vmdisk repair %s\n%s", s.VM, abort)
	}
	return text, abort
}
