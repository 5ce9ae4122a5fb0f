// The order of arguments: people type `vmdisk boot web1 --image X` and
// `vmdisk ls -o json`, urfave/cli stops reading flags at the first argument and
// knows global flags only before the command.

package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// arrange sorts a command line into global flags, command, its flags, and what
// is left, so that each is where urfave/cli looks for it. What it does not
// understand it leaves to be reported.
func arrange(app *cli.App, args []string) []string {
	var global, path, own, rest []string
	flags, subs := app.Flags, app.Commands
	var current *cli.Command
	ended := false
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			rest = append(rest, args[i+1:]...)
			break
		}
		if !strings.HasPrefix(arg, "-") || arg == "-" {
			if sub := find(subs, arg); sub != nil && !ended {
				path = append(path, arg)
				current, subs, flags = sub, sub.Subcommands, sub.Flags
				continue
			}
			ended = true
			rest = append(rest, arg)
			continue
		}
		name, _, joined := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		to := &own
		flag := findFlag(flags, name)
		if flag == nil || current == nil {
			if g := findFlag(app.Flags, name); g != nil {
				flag, to = g, &global
			}
		}
		*to = append(*to, arg)
		if flag != nil && !joined && takesValue(flag) && i+1 < len(args) {
			i++
			*to = append(*to, args[i])
		}
	}
	out := slices.Concat(global, path, own)
	if len(rest) > 0 {
		if len(path) > 0 {
			out = append(out, "--")
		}
		out = append(out, rest...)
	}
	return out
}

func find(commands []*cli.Command, name string) *cli.Command {
	for _, c := range commands {
		if c.HasName(name) {
			return c
		}
	}
	return nil
}

func findFlag(flags []cli.Flag, name string) cli.Flag {
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

func takesValue(f cli.Flag) bool {
	v, ok := f.(cli.DocGenerationFlag)
	return ok && v.TakesValue()
}
