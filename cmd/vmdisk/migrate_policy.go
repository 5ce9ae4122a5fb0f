// The flags of vmdisk migrate that say how a guest is moved.

package main

import (
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"github.com/vmdisk/vmdisk/migrate"
)

// policyFlags are those of a [migrate.Policy]. Its time limit is not called --timeout:
// that is how long something may not answer, before and after the command's name.
func policyFlags() []cli.Flag {
	return []cli.Flag{
		&cli.DurationFlag{Name: "downtime", Usage: "it may stand still for `TIME` at the end", DefaultText: "500ms"},
		&cli.StringFlag{Name: "bandwidth", Usage: "send at most this `SIZE` a second, as 100M"},
		&cli.DurationFlag{Name: "deadline", Usage: "abort a move that is not over after `TIME`", DefaultText: "none"},
		&cli.DurationFlag{Name: "stall-after", Usage: "it gets no nearer for `TIME`", DefaultText: "30s + 10s/GiB"},
		&cli.StringFlag{Name: "on-stall", Usage: "then do `WHAT`: auto-converge, abort, postcopy, pause"},
		&cli.BoolFlag{Name: "auto-converge", Usage: "slow down a guest that writes too fast", DisableDefaultText: true},
		&cli.BoolFlag{Name: "postcopy", Usage: "run it there after the first pass; fetch the rest", DisableDefaultText: true},
		&cli.IntFlag{Name: "parallel", Usage: "copy over `N` connections", DefaultText: "1"},
		&cli.BoolFlag{Name: "compress", Usage: "send what changed in a page, not all of it", DisableDefaultText: true},
		&cli.BoolFlag{Name: "tls", Usage: "encrypt the guest's memory on its way", DisableDefaultText: true},
	}
}

const policyHelp = `A guest may write faster than its memory is copied. --on-stall says what to
do if a move gets no nearer to its end:
  auto-converge  slow the guest down as far as it takes (the default)
  abort          leave it where it is
  postcopy       run it on DEST and fetch the rest; no abort any more
  pause          stop it until all is copied
Whatever it is, a move that gets no nearer even then is aborted.`

// policy reads them. What migrate refuses about their values is said there.
func (c *command) policy() (p migrate.Policy, err error) {
	p = migrate.Policy{
		Downtime: c.Duration("downtime"), Timeout: c.Duration("deadline"), StallAfter: c.Duration("stall-after"),
		OnStall: migrate.Stall(c.String("on-stall")), AutoConverge: c.Bool("auto-converge"), Postcopy: c.Bool("postcopy"),
		Parallel: c.Int("parallel"), Compress: c.Bool("compress"), TLS: c.Bool("tls"),
	}
	for _, name := range []string{"downtime", "deadline", "stall-after"} {
		if c.IsSet(name) && c.Duration(name) < time.Millisecond {
			return p, usagef("--%s %v is not positive", name, c.Duration(name))
		}
	}
	if c.IsSet("parallel") && p.Parallel < 1 {
		return p, usagef("--parallel %d is less than 1", p.Parallel)
	}
	p.Bandwidth, err = optionalSize(strings.TrimSuffix(c.String("bandwidth"), "/s"))
	return p, err
}
