// Bulk work with a bounded number of calls into librbd at once.

package disk

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"
)

// each runs f for every name and returns the results in their order. What
// disappeared since it was listed is left out.
func each[T any](ctx context.Context, names []string, f func(string) (T, error)) ([]T, error) {
	return eachOf(ctx, workers, names, f)
}

// eachOf is each with so many at once.
func eachOf[T any](ctx context.Context, workers int, names []string, f func(string) (T, error)) ([]T, error) {
	results := make([]*T, len(names))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(workers)
	for i, name := range names {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			r, err := f(name)
			if errors.Is(err, ErrNotFound) {
				return nil
			}
			results[i] = &r
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	all := make([]T, 0, len(names))
	for _, r := range results {
		if r != nil {
			all = append(all, *r)
		}
	}
	return all, nil
}

// parallel does something with each of many.
func parallel[T any](ctx context.Context, all []T, do func(T) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(workers)
	for _, one := range all {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return do(one)
		})
	}
	return group.Wait()
}
