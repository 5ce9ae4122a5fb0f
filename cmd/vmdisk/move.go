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
		Name: "move", Usage: "move a disk of a machine to another pool or cluster", ArgsUsage: "VM DISK POOL",
		Description: `DISK is a target (vda), an image, or a volume's ID. A machine that runs goes on
running; one that is off stays off. The disk keeps its name and what the guest
sees of it. It becomes flat: it shares no data with an image any more.

  vmdisk move web1 vda ssd --dry-run    what would be done
  vmdisk move web1 vda ssd
  vmdisk move web1 vda vms --to-conf /etc/ceph/new.conf

The second cluster's ceph.conf, and the keyring that it names, must be in the
same place on the machine's host. A machine's disks go there one by one; until
the last has gone it can be neither removed nor evacuated. From then on it is
worked on with that cluster:  vmdisk --conf /etc/ceph/new.conf ...

The cluster's user needs the cap osd 'profile rbd pool=POOL'. Nova and Cinder
look for a disk in the pool that they are configured with: tell them.
Ctrl-C while the disk is copied leaves it where it was.`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "dry-run", Usage: "only say what would be done", DisableDefaultText: true},
			bandwidthFlag(),
			&cli.StringFlag{Name: "to-conf", Usage: "ceph.conf `FILE` of another cluster, which has the pool"},
			&cli.StringFlag{Name: "to-id", Usage: "cephx `USER` there", DefaultText: "that of --id"},
			&cli.StringFlag{Name: "to-keyring", Usage: "`FILE` with that user's key", DefaultText: "as the other ceph.conf says"},
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
	o := vmdisk.MoveOptions{Bandwidth: rate}
	if o.Ceph, err = c.otherCluster(); err != nil {
		return err
	}
	if c.Bool("dry-run") {
		m, err := h.PlanMoveDisk(ctx, args[0], args[1], args[2], o)
		if err != nil {
			return err
		}
		return printMovePlan(c.ui, m, rate)
	}
	m, err := h.MoveDisk(ctx, args[0], args[1], args[2], o)
	if err != nil {
		return err
	}
	stood := ""
	if m.Running {
		stood = fmt.Sprintf(", it stood still for %d ms", m.Stood.Milliseconds())
	}
	return c.ui.result(diskMoveOf(m), "%s: %s in %s: %s moved in %s%s", m.VM, m.Target, poolOf(m),
		disk.FormatSize(m.Size), strings.TrimSpace(duration(m.Elapsed)), stood)
}

// otherCluster is the one that the disk is to be in, or nil.
func (c *command) otherCluster() (*disk.Config, error) {
	if c.String("to-conf") == "" {
		for _, flag := range []string{"to-conf", "to-id", "to-keyring"} {
			if c.IsSet(flag) {
				return nil, usagef("--%s is about another cluster: name its ceph.conf with --to-conf", flag)
			}
		}
		return nil, nil
	}
	user := c.set.User
	if c.IsSet("to-id") {
		if user = bareUser(c.String("to-id")); user == "" {
			return nil, usagef("the cephx user --to-id is empty")
		}
	}
	return &disk.Config{Conf: c.String("to-conf"), User: user, Keyring: c.String("to-keyring")}, nil
}

// poolOf is where a disk moves, for people.
func poolOf(m vmdisk.DiskMove) string {
	if m.ToConf != "" {
		return "pool " + m.To + " of " + m.ToConf
	}
	return "pool " + m.To
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
	t.add("%s  %s, %s → %s", m.Target, m.From+"/"+m.Image, disk.FormatSize(m.Size), poolOf(m))
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
