// One command for many things.

package main

import (
	"slices"

	"golang.org/x/sync/errgroup"
)

// manyWorkers is how many are made at once.
const manyWorkers = 16

// makeMany makes count things at once and returns those that came to be, in their
// order, also if one did not.
func makeMany[T any](count int, make1 func(i int) (T, error)) ([]T, error) {
	made := make([]T, count)
	errs := make(failures, count)
	var group errgroup.Group
	group.SetLimit(manyWorkers)
	for i := range count {
		group.Go(func() error {
			made[i], errs[i] = make1(i)
			return nil
		})
	}
	_ = group.Wait()
	all := []T{}
	for i, one := range made {
		if errs[i] == nil {
			all = append(all, one)
		}
	}
	return all, errs.orNil()
}

// several are one argument or more; named twice counts once.
func (c *command) several(name string) ([]string, error) {
	var all []string
	for _, arg := range c.Args().Slice() {
		if !slices.Contains(all, arg) {
			all = append(all, arg)
		}
	}
	if len(all) == 0 {
		return nil, usagef("%s is missing; usage: %s", name, c.usage())
	}
	return all, nil
}

// doMany does something with each argument, at once, and shows what came of it: of
// several a list, of those with which it could be done. An empty line is not shown.
func doMany[T any](c *command, args []string, do func(arg string) (T, error), line func(T) string) error {
	if len(args) == 1 {
		r, err := do(args[0])
		if err != nil {
			return err
		}
		if line(r) == "" {
			return c.ui.result(r, "")
		}
		return c.ui.result(r, "%s", line(r))
	}
	all, err := makeMany(len(args), func(i int) (T, error) { return do(args[i]) })
	for _, r := range all {
		if text := line(r); text != "" {
			if err := c.ui.text(text); err != nil {
				return err
			}
		}
	}
	if err := c.ui.result(all, ""); err != nil {
		return err
	}
	return err
}
