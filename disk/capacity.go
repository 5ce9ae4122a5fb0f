// How much room there is.

package disk

import (
	"context"
	"slices"
	"strings"
	"time"
)

// Capacity is the room in a cluster and its pools.
type Capacity struct {
	Total     int64 `json:"total"`     // bytes of all OSDs together
	Used      int64 `json:"used"`      // raw: with every copy
	Available int64 `json:"available"` // raw
	// Pools are in the order in which they were asked for.
	Pools []PoolCapacity `json:"pools"`
}

// PoolCapacity is the room in a pool. Total, Used and Available are what Nova
// reports as its hypervisors' disk. Source: nova/storage/rbd_utils.py,
// get_pool_info.
type PoolCapacity struct {
	Pool      string `json:"pool"`
	Total     int64  `json:"total"`     // bytes: the cluster's, raw
	Used      int64  `json:"used"`      // bytes: with every copy
	Available int64  `json:"available"` // bytes that can still be written
	Stored    int64  `json:"stored"`    // bytes of data, one copy
	Objects   int64  `json:"objects"`
	Quota     int64  `json:"quota"` // bytes, or 0
}

// Capacity reads how much room there is in pools; in all of those that OpenStack's
// services use if none is named. One that does not exist is [ErrNotFound].
// Available takes replication, the fullest OSD and the pool's quota into account. The
// cluster tells the room of a pool a few seconds after that was made: Capacity waits for
// it, for as long as a dead client's watch lasts, and is [ErrTimeout] then.
//
// Similar to: ceph df detail.
func (c *Cluster) Capacity(ctx context.Context, pools ...string) (Capacity, error) {
	if len(pools) == 0 {
		pools = Pools()
	}
	waiting, cancel := context.WithTimeout(ctx, watchExpiry)
	defer cancel()
	for {
		all, untold, err := c.capacity(ctx, pools)
		if err != nil || untold == "" {
			return all, err
		}
		if _, err := c.Pool(ctx, untold); ignore(err, ErrPermission) != nil { // that it is there is all that is asked
			return Capacity{}, err
		}
		select {
		case <-waiting.Done():
			if ctx.Err() != nil {
				return Capacity{}, ctx.Err()
			}
			return Capacity{}, &Error{Op: "ask for room in", Object: "pool " + untold, Kind: ErrTimeout,
				Reason: "the cluster's manager does not tell it; is it there?  ceph mgr stat"}
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// capacity is the room in pools as the manager last told it, or the first of them of
// which it has told nothing.
func (c *Cluster) capacity(ctx context.Context, pools []string) (all Capacity, untold string, err error) {
	var df struct {
		Stats struct {
			Total     int64 `json:"total_bytes"`
			Used      int64 `json:"total_used_raw_bytes"`
			Available int64 `json:"total_avail_bytes"`
		}
		Pools []struct {
			Name  string
			Stats struct {
				Stored    int64
				Objects   int64
				Used      int64 `json:"bytes_used"`
				Available int64 `json:"max_avail"`
				Quota     int64 `json:"quota_bytes"`
			}
		}
	}
	if err := c.AskJSON(ctx, map[string]any{"prefix": "df", "detail": "detail"}, &df); err != nil {
		return Capacity{}, "", err
	}
	all = Capacity{Total: df.Stats.Total, Used: df.Stats.Used, Available: df.Stats.Available, Pools: []PoolCapacity{}}
	for _, name := range pools {
		found := false
		for _, p := range df.Pools {
			if p.Name != name {
				continue
			}
			found = true
			one := PoolCapacity{Pool: name, Total: all.Total, Used: p.Stats.Used, Available: p.Stats.Available,
				Stored: p.Stats.Stored, Objects: p.Stats.Objects, Quota: p.Stats.Quota}
			if one.Quota > 0 {
				one.Available = max(min(one.Available, one.Quota-one.Stored), 0)
			}
			all.Pools = append(all.Pools, one)
		}
		if !found {
			return Capacity{}, name, nil
		}
	}
	return all, "", nil
}

// FullPools names the pools that take no more writes: those over their quota, and all
// if the cluster is full.
//
// Similar to: ceph health detail.
func (c *Cluster) FullPools(ctx context.Context) ([]string, error) {
	var pools []struct {
		Name  string `json:"pool_name"`
		Flags string `json:"flags_names"`
	}
	if err := c.AskJSON(ctx, map[string]any{"prefix": "osd pool ls", "detail": "detail"}, &pools); err != nil {
		return nil, err
	}
	full := []string{}
	for _, p := range pools {
		if slices.Contains(strings.Split(p.Flags, ","), "full") {
			full = append(full, p.Name)
		}
	}
	return full, nil
}
