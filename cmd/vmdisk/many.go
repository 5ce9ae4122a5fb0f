// One command that makes many of a thing.

package main

import "golang.org/x/sync/errgroup"

// manyWorkers is how many are made at once.
const manyWorkers = 8

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
