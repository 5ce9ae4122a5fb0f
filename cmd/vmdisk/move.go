// vmdisk move

package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"github.com/vmdisk/vmdisk"
	"github.com/vmdisk/vmdisk/disk"
)

func moveCommand() *cli.Command {
	return &cli.Command{
		Name: "move", Usage: "move a disk of a machine to another pool", ArgsUsage: "VM DISK POOL",
		Description: `DISK is a target (vda), an image, or a volume's ID. A machine that runs goes on
running; one that is off stays off. The disk keeps its name and what the guest
sees of it. It becomes flat: it shares no data with an image any more.

  vmdisk move web1 vda ssd --dry-run    what would be done
  vmdisk move web1 vda ssd

The cluster's user needs the cap osd 'profile rbd pool=POOL'. Nova and Cinder
look for a disk in the pool that they are configured with: tell them.
Ctrl-C while the disk is copied leaves it where it was.`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "dry-run", Usage: "only say what would be done", DisableDefaultText: true},
			bandwidthFlag(),
		},
		Action: onHost(runMove),
	}
}

func runMove(ctx context.Context, c *command, h *vmdisk.Host) error {
	args, err := c.arguments("VM", "DISK", "POOL")
	if err != nil {
		return err
	}
	rate, err := c.bandwidth()
	if err != nil {
		return err
	}
	if c.Bool("dry-run") {
		m, err := h.PlanMoveDisk(ctx, args[0], args[1], args[2])
		if err != nil {
			return err
		}
		return printMovePlan(c.ui, m, rate)
	}
	m, err := h.MoveDisk(ctx, args[0], args[1], args[2], vmdisk.MoveOptions{Bandwidth: rate})
	if err != nil {
		return err
	}
	stood := ""
	if m.Running {
		stood = fmt.Sprintf(", it stood still for %d ms", m.Stood.Milliseconds())
	}
	return c.ui.result(diskMoveOf(m), "%s: %s in pool %s: %s moved in %s%s", m.VM, m.Target, m.To,
		disk.FormatSize(m.Size), strings.TrimSpace(duration(m.Elapsed)), stood)
}

// diskMove is one that happened, or is planned, as JSON.
type diskMove struct {
	vmdisk.DiskMove
	Elapsed int64 `json:"elapsed_ms"`
	Stood   int64 `json:"stood_still_ms"`
}

func diskMoveOf(m vmdisk.DiskMove) diskMove {
	return diskMove{m, m.Elapsed.Milliseconds(), m.Stood.Milliseconds()}
}

// printMovePlan says what a move would do.
func printMovePlan(u *ui, m vmdisk.DiskMove, rate int64) error {
	u.close()
	if u.json {
		return u.encode(diskMoveOf(m))
	}
	var t text
	t.add("%s  %s, %s → pool %s", m.Target, m.From+"/"+m.Image, disk.FormatSize(m.Size), m.To)
	if m.Parent != "" {
		t.add("     becomes independent of %s", m.Parent)
	}
	t.add("%s", strings.TrimSuffix(unifiedDiff(m.Before, m.After), "\n"))
	t.add("%s", expected(m.Data, rate))
	return t.print(u)
}

// expected is how long a copy takes, for people; a rate of 0 is not known.
func expected(data, rate int64) string {
	how := "held to that rate"
	if rate == 0 {
		rate, how = assumedRate, "if so much is copied"
	}
	about := time.Duration(float64(data) / float64(rate) * float64(time.Second))
	return fmt.Sprintf("would copy up to %s: about %s at %s/s, %s", disk.FormatSize(data),
		strings.TrimSpace(duration(about)), disk.FormatSize(rate), how)
}
