// vmdisk lab up, down, status, env, run, demo

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"github.com/vmdisk/vmdisk"
	"github.com/vmdisk/vmdisk/lab"
)

// defaultLab is short because sockets are in it, and not in /tmp because the
// OSD's data is, too.
const defaultLab = "/var/tmp/vmdisk-lab"

func labCommand() *cli.Command {
	dir := &cli.StringFlag{Name: "dir", Usage: "the lab's `DIR`", EnvVars: []string{lab.EnvDir}, Value: defaultLab}
	size := []cli.Flag{dir,
		&cli.BoolFlag{Name: "bare", Usage: "without pools and users: vmdisk cluster init makes them"},
		&cli.BoolFlag{Name: "hurried", Usage: "the monitor does not gather changes for a second: for tests, not for measuring"},
		&cli.IntFlag{Name: "osds", Usage: "`N` OSDs", Value: 1},
		&cli.IntFlag{Name: "hosts", Usage: "`N` libvirt hosts", Value: 2},
		&cli.StringFlag{Name: "store", Usage: "OSDs keep data in `STORE`: bluestore (a sparse file) or memstore", Value: string(lab.BlueStore)},
	}
	return &cli.Command{
		Name: "lab", Usage: "a throw-away Ceph and libvirt hosts on this machine",
		Subcommands: []*cli.Command{
			{Name: "up", Usage: "make the lab, or find it healthy", Flags: size, Action: action(runLabUp)},
			{Name: "down", Usage: "end the lab and leave nothing", Flags: []cli.Flag{dir}, Action: action(runLabDown)},
			{Name: "status", Usage: "what each part does", Flags: []cli.Flag{dir}, Action: action(runLabStatus)},
			{
				Name: "env", Usage: "print shell exports for using the lab", Flags: []cli.Flag{dir},
				Description: "eval \"$(vmdisk lab env)\" makes vmdisk, ceph, rbd and virsh use the lab.",
				Action:      action(runLabEnv),
			},
			{
				Name: "run", Usage: "run a command in the lab, or in one that ends with it", ArgsUsage: "-- COMMAND [ARG...]",
				Flags: size, Action: action(runLabRun),
			},
			{Name: "demo", Usage: "show the main job on a lab that ends with it", Action: action(runDemo)},
		},
	}
}

func (c *command) labOptions() lab.Options {
	return lab.Options{
		Dir: c.String("dir"), OSDs: c.Int("osds"), Hosts: c.Int("hosts"), Store: lab.Store(c.String("store")), Bare: c.Bool("bare"), Hurried: c.Bool("hurried"),
		Report: c.ui.labReport(),
	}
}

// labReport prints what the lab does in the form of the other steps.
func (u *ui) labReport() func(string, ...any) {
	begin := time.Now()
	return func(format string, args ...any) {
		u.observe(vmdisk.Event{Kind: vmdisk.Note, Op: "lab", Step: "lab", Detail: fmt.Sprintf(format, args...), Elapsed: time.Since(begin)})
	}
}

func runLabUp(ctx context.Context, c *command) error {
	if _, err := c.arguments(); err != nil {
		return err
	}
	l, err := lab.Up(ctx, c.labOptions())
	if err != nil {
		return err
	}
	return c.ui.result(l.Status(ctx), "the lab is up in %s; to use it:  eval \"$(vmdisk lab env --dir %s)\"", l.Dir, l.Dir)
}

func runLabDown(ctx context.Context, c *command) error {
	if _, err := c.arguments(); err != nil {
		return err
	}
	dir := c.String("dir")
	err := lab.Down(ctx, dir)
	if errors.Is(err, lab.ErrNoLab) {
		return c.ui.result(map[string]string{"dir": dir}, "no lab in %s", dir)
	}
	if err != nil {
		return err
	}
	return c.ui.result(map[string]string{"dir": dir}, "the lab in %s is gone", dir)
}

func runLabStatus(ctx context.Context, c *command) error {
	if _, err := c.arguments(); err != nil {
		return err
	}
	l, err := lab.Open(c.String("dir"))
	if err != nil {
		return err
	}
	s := l.Status(ctx)
	rows := []string{"ceph\t" + s.Health + "\t-\tfsid " + s.FSID}
	for _, p := range s.Parts {
		rows = append(rows, fmt.Sprintf("%s\t%s\t%d\t%s", p.Name, p.State, p.PID, orDash(strings.TrimSpace(p.Addr+" "+p.Fault))))
	}
	if err := c.ui.table(s, "", "PART\tSTATE\tPID\tADDRESS", rows); err != nil {
		return err
	}
	if !s.Healthy() {
		return fmt.Errorf("the lab in %s is not healthy; to make it anew:  vmdisk lab up --dir %s", s.Dir, s.Dir)
	}
	return nil
}

func runLabEnv(_ context.Context, c *command) error {
	if _, err := c.arguments(); err != nil {
		return err
	}
	l, err := lab.Open(c.String("dir"))
	if err != nil {
		return err
	}
	env := map[string]string{}
	var lines []string
	for _, pair := range l.Env() {
		name, value, _ := strings.Cut(pair, "=")
		env[name] = value
		lines = append(lines, fmt.Sprintf("export %s='%s'", name, strings.ReplaceAll(value, "'", `'\''`)))
	}
	return c.ui.result(env, "%s", strings.Join(lines, "\n"))
}

// runLabRun runs a command in a lab of its own, unless --dir names one.
func runLabRun(ctx context.Context, c *command) error {
	argv := c.Args().Slice()
	if len(argv) == 0 {
		return usagef("COMMAND is missing; usage: %s %s", c.Command.HelpName, c.Command.ArgsUsage)
	}
	return inLab(ctx, c, func(l *lab.Lab) error {
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, c.ui.out, c.ui.err
		cmd.Env = append(append(os.Environ(), l.Env()...), lab.EnvDir+"="+l.Dir)
		cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
		return cmd.Run()
	})
}

// inLab works in a lab and ends it, whatever came of the work; one that was up
// before stays up.
func inLab(ctx context.Context, c *command, work func(*lab.Lab) error) (err error) {
	o := c.labOptions()
	if !c.IsSet("dir") {
		if o.Dir, err = os.MkdirTemp("/var/tmp", "lab-"); err != nil {
			return err
		}
		defer os.Remove(o.Dir)
	}
	_, notThere := lab.Open(o.Dir)
	l, err := lab.Up(ctx, o)
	if err != nil {
		return err
	}
	if notThere == nil {
		return work(l)
	}
	defer func() { err = errors.Join(err, l.Down(context.WithoutCancel(ctx))) }()
	return work(l)
}
