// The command as a whole: global flags, where their values come from, and the
// Host made of them.

package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/ceph/go-ceph/rbd"
	"github.com/urfave/cli/v2"
	"github.com/vmdisk/vmdisk"
	"github.com/vmdisk/vmdisk/disk"
)

// version is set by the Makefile.
var version = "devel"

// settings are the global flags after environment and file had their say.
type settings struct {
	Conf, User, Keyring, Connect, Output, Progress string
	SecretUUID, VirtType                           string
	BackupID, BackupKeyring                        string
	Timeout                                        time.Duration
	MaxCloneDepth                                  int
}

// command is what a subcommand's action gets to work with.
type command struct {
	*cli.Context
	ui  *ui
	set settings
}

// run is the command from its arguments to its exit code. Tests call it too.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	app := newApp(stdout, stderr)
	err := app.RunContext(ctx, append([]string{"vmdisk"}, arrange(app, args)...))
	if err != nil {
		printError(stderr, err)
	}
	return exitCode(err)
}

func newApp(stdout, stderr io.Writer) *cli.App {
	cli.VersionFlag = &cli.BoolFlag{Name: "version", Usage: "print the version", DisableDefaultText: true}
	major, minor, patch := rbd.Version()
	return &cli.App{
		Name:    "vmdisk",
		Usage:   "virtual machines whose disks are in Ceph",
		Version: fmt.Sprintf("%s (librbd %d.%d.%d)", version, major, minor, patch),
		Description: `Images are [POOL/]IMAGE[@SNAP], machines a name or a UUID, sizes 10G or +10G
(K, M, G, T: binary). Flags go before or after arguments. Results are on
standard output, everything else on standard error.

Exit codes: 0 done; 1 other; 2 not found; 16 busy or in use; 17 exists;
22 bad input or usage; 28 no space; 39 has snapshots or clones;
75 interrupted with something left; 110 timed out;
130 cancelled, or aborted by another command.`,
		Flags:                  globalFlags(),
		Commands:               commands(),
		Writer:                 stdout,
		ErrWriter:              stderr,
		UseShortOptionHandling: false,
		HideHelpCommand:        true,
		ExitErrHandler:         func(*cli.Context, error) {}, // the exit code is run's
		OnUsageError:           func(_ *cli.Context, err error, _ bool) error { return usageError{err} },
		CommandNotFound:        nil,
		Action:                 noCommand,
		Suggest:                true,
	}
}

func commands() []*cli.Command {
	all := []*cli.Command{
		bootCommand(), lsCommand(), infoCommand(), startCommand(), stopCommand(),
		rmCommand(), resizeCommand(), rescueCommand(), unrescueCommand(), rebuildCommand(),
		attachCommand(), detachCommand(), migrateCommand(), adoptCommand(), ejectCommand(),
		moveCommand(), fillCommand(),
		repairCommand(), whyCommand(), evacuateCommand(), drainCommand(),
		clusterCommand(), imageCommand(), volumeCommand(), backupCommand(), diskCommand(),
		secretCommand(), labCommand(),
	}
	for _, c := range all {
		prepareCommand(c)
	}
	return all
}

// prepareCommand gives every command, at any depth, what all have in common.
func prepareCommand(c *cli.Command) {
	c.OnUsageError = func(_ *cli.Context, err error, _ bool) error { return usageError{err} }
	c.HideHelpCommand = true
	if c.Action == nil {
		c.Action = noCommand
	}
	for _, sub := range c.Subcommands {
		prepareCommand(sub)
	}
}

// noCommand is the action of what only has subcommands.
func noCommand(c *cli.Context) error {
	if word := c.Args().First(); word != "" {
		return usagef("no command %q; see: %s --help", word, c.Command.HelpName)
	}
	return cli.ShowSubcommandHelp(c)
}

func globalFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "conf", Aliases: []string{"c"}, Usage: "the cluster's `FILE`", EnvVars: []string{"VMDISK_CONF", "CEPH_CONF"}, Value: disk.DefaultConf},
		&cli.StringFlag{Name: "id", Aliases: []string{"n", "name"}, Usage: "cephx `USER`, with or without \"client.\"", EnvVars: []string{"VMDISK_ID", "VMDISK_NAME"}, Value: "cinder"},
		&cli.StringFlag{Name: "keyring", Aliases: []string{"k"}, Usage: "`FILE` with the user's key", EnvVars: []string{"VMDISK_KEYRING"}, DefaultText: "as ceph.conf says"},
		&cli.StringFlag{Name: "backup-id", Usage: "cephx `USER` who writes backups", EnvVars: []string{"VMDISK_BACKUP_ID"}, Value: "cinder-backup"},
		&cli.StringFlag{Name: "backup-keyring", Usage: "`FILE` with that user's key", EnvVars: []string{"VMDISK_BACKUP_KEYRING"}, DefaultText: "as ceph.conf says"},
		&cli.StringFlag{Name: "connect", Usage: "libvirt `URI`", EnvVars: []string{"VMDISK_CONNECT", "LIBVIRT_DEFAULT_URI"}, Value: "qemu:///system"},
		&cli.StringFlag{Name: "config", Usage: "YAML `FILE` with defaults for these flags", EnvVars: []string{"VMDISK_CONFIG"}, Value: defaultConfig},
		&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "print results as `FORMAT`: text or json", EnvVars: []string{"VMDISK_OUTPUT"}, Value: "text"},
		&cli.StringFlag{Name: "progress", Usage: "show progress as `MODE`: auto, plain, json or none", EnvVars: []string{"VMDISK_PROGRESS"}, Value: "auto"},
		&cli.BoolFlag{Name: "no-progress", Usage: "same as --progress none", EnvVars: []string{"VMDISK_NO_PROGRESS"}},
		&cli.DurationFlag{Name: "timeout", Usage: "wait at most this `TIME` (30s, 2m) for a monitor, an OSD, libvirtd or a guest", EnvVars: []string{"VMDISK_TIMEOUT"}, DefaultText: "10s to 60s"},
		&cli.BoolFlag{Name: "wait", Usage: "wait for another command that works on the same machine or volume, and for all data of a boot", EnvVars: []string{"VMDISK_WAIT"}},
		&cli.StringFlag{Name: "secret-uuid", Usage: "`UUID` of the libvirt secret", EnvVars: []string{"VMDISK_SECRET_UUID"}, DefaultText: "from cluster and user"},
		&cli.IntFlag{Name: "max-clone-depth", Usage: "flatten a volume from a volume where the chain is `N` deep; 0 copies always", EnvVars: []string{"VMDISK_MAX_CLONE_DEPTH"}, Value: vmdisk.DefaultCloneDepth},
		&cli.StringFlag{Name: "virt-type", Usage: "`TYPE` of new machines: auto, kvm or qemu", EnvVars: []string{"VMDISK_VIRT_TYPE"}, Value: "auto"},
	}
}

// action wraps what a subcommand does: settings read and checked, ui made and
// closed.
func action(f func(context.Context, *command) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		set, err := readSettings(c)
		if err != nil {
			return err
		}
		u := newUI(c.App.Writer, c.App.ErrWriter, set.Output, set.Progress)
		defer func() { u.close() }() // that of then
		return f(c.Context, &command{Context: c, ui: u, set: set})
	}
}

// onHost is an action that works on a host.
func onHost(f func(context.Context, *command, *vmdisk.Host) error) cli.ActionFunc {
	return action(func(ctx context.Context, c *command) error {
		h, err := c.open(ctx)
		if err != nil {
			return err
		}
		err = f(ctx, c, h)
		if closing := h.Close(); err == nil {
			err = closing
		}
		return err
	})
}

func (c *command) open(ctx context.Context) (*vmdisk.Host, error) {
	return vmdisk.Open(ctx, vmdisk.Config{
		Ceph:       disk.Config{Conf: c.set.Conf, User: c.set.User, Keyring: c.set.Keyring},
		Backup:     disk.Config{User: c.set.BackupID, Keyring: c.set.BackupKeyring},
		URI:        c.set.Connect,
		VirtType:   c.set.VirtType,
		SecretUUID: c.set.SecretUUID,
		Timeout:    c.set.Timeout,
		Wait:       c.Bool("wait"),
		// In the library 0 is the default, here what Cinder means by it: always copy.
		MaxCloneDepth: cmp.Or(c.set.MaxCloneDepth, -1),
		Observe:       c.ui.observe,
	})
}

// arguments checks how many there are and returns them.
func (c *command) arguments(names ...string) ([]string, error) {
	args := c.Args().Slice()
	if len(args) < len(names) {
		return nil, usagef("%s is missing; usage: %s", names[len(args)], c.usage())
	}
	if len(args) > len(names) {
		return nil, usagef("unexpected argument %q; usage: %s", args[len(names)], c.usage())
	}
	return args, nil
}

func (c *command) usage() string {
	return strings.TrimSpace(c.Command.HelpName + " " + c.Command.ArgsUsage)
}

func bareUser(user string) string { return strings.TrimPrefix(user, "client.") }
