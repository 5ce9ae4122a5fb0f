// Where a setting comes from: flag before environment before CEPH_ARGS before
// file before default.

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/urfave/cli/v2"
)

const defaultConfig = "/etc/vmdisk/config.yaml"

// file is what the YAML file may say, in the words of the flags.
type file struct {
	Conf       string `yaml:"conf"`
	ID         string `yaml:"id"`
	Keyring    string `yaml:"keyring"`
	BackupID   string `yaml:"backup-id"`
	BackupKey  string `yaml:"backup-keyring"`
	Connect    string `yaml:"connect"`
	Output     string `yaml:"output"`
	Progress   string `yaml:"progress"`
	Timeout    string `yaml:"timeout"`
	SecretUUID string `yaml:"secret-uuid"`
	VirtType   string `yaml:"virt-type"`

	MaxCloneDepth *int `yaml:"max-clone-depth"`
}

// readFile reads the configuration. Only the default file may be missing.
func readFile(path string, asked bool) (file, error) {
	var f file
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !asked {
		return f, nil
	}
	if err != nil {
		return f, usagef("configuration: %v", err)
	}
	err = yaml.UnmarshalWithOptions(data, &f, yaml.Strict())
	var where yaml.Error
	if errors.As(err, &where) && where.GetToken() != nil {
		return f, usagef("configuration %s, line %d: %s", path, where.GetToken().Position.Line, where.GetMessage())
	}
	if err != nil {
		return f, usagef("configuration %s: %v", path, err)
	}
	return f, nil
}

// cephArgs are the options of CEPH_ARGS that librados leaves to the program.
func cephArgs(env string) file {
	var f file
	words := strings.Fields(env)
	for i, w := range words {
		name, value, joined := strings.Cut(w, "=")
		if !joined && i+1 < len(words) {
			value = words[i+1]
		}
		switch name {
		case "-c", "--conf":
			f.Conf = value
		case "--id", "--user", "-n", "--name":
			f.ID = value
		case "-k", "--keyring":
			f.Keyring = value
		}
	}
	return f
}

// readSettings merges flags, environment and files, and checks the result.
func readSettings(c *cli.Context) (settings, error) {
	// The application's own context, above the commands': a command may have a
	// flag of the same name, as image import has --name.
	lineage := c.Lineage()
	c = lineage[len(lineage)-2]
	f, err := readFile(c.String("config"), c.IsSet("config"))
	if err != nil {
		return settings{}, err
	}
	args := cephArgs(os.Getenv("CEPH_ARGS"))
	pick := func(flag string, others ...string) string {
		if c.IsSet(flag) {
			return c.String(flag)
		}
		for _, v := range others {
			if v != "" {
				return v
			}
		}
		return c.String(flag)
	}
	s := settings{
		Conf:       pick("conf", args.Conf, f.Conf),
		User:       pick("id", args.ID, f.ID),
		Keyring:    pick("keyring", args.Keyring, f.Keyring),
		BackupID:   bareUser(pick("backup-id", f.BackupID)),
		Connect:    pick("connect", f.Connect),
		Output:     pick("output", f.Output),
		Progress:   pick("progress", f.Progress),
		SecretUUID: pick("secret-uuid", f.SecretUUID),
		VirtType:   pick("virt-type", f.VirtType),
		Timeout:    c.Duration("timeout"),
		// A keyring that is named for one user is seldom the other's.
		BackupKeyring: pick("backup-keyring", f.BackupKey),

		MaxCloneDepth: c.Int("max-clone-depth"),
	}
	if f.MaxCloneDepth != nil && !c.IsSet("max-clone-depth") {
		s.MaxCloneDepth = *f.MaxCloneDepth
	}
	s.User = bareUser(s.User)
	if c.Bool("no-progress") {
		s.Progress = "none"
	}
	if s.VirtType == "auto" {
		s.VirtType = ""
	}
	if f.Timeout != "" && !c.IsSet("timeout") {
		if s.Timeout, err = time.ParseDuration(f.Timeout); err != nil {
			return s, usagef("configuration %s: timeout: %v", c.String("config"), err)
		}
	}
	return s, s.check(c.IsSet("timeout"))
}

func (s settings) check(timeoutSet bool) error {
	switch {
	case s.User == "" || s.BackupID == "":
		return usagef("the cephx user is empty")
	case s.MaxCloneDepth < 0:
		return usagef("--max-clone-depth %d is below 0", s.MaxCloneDepth)
	case s.Timeout < 0 || timeoutSet && s.Timeout == 0:
		return usagef("--timeout %v is not positive", s.Timeout)
	}
	if err := oneOf("--output", s.Output, "text", "json"); err != nil {
		return err
	}
	if err := oneOf("--progress", s.Progress, "auto", "plain", "json", "none"); err != nil {
		return err
	}
	return oneOf("--virt-type", s.VirtType, "", "kvm", "qemu")
}

func oneOf(flag, value string, allowed ...string) error {
	for _, a := range allowed {
		if a == value {
			return nil
		}
	}
	return usagef("%s %q is none of %s", flag, value, strings.TrimPrefix(strings.Join(allowed, ", "), ", "))
}

// usageError is bad input on the command line or in a file.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }
