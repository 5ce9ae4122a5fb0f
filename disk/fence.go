// Fencing: keeping a client from the cluster that may still believe it owns
// something.

package disk

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"strconv"
	"strings"
	"time"
)

// FenceTime outlasts any sleep of a process or a host. Ceph's own default of one
// hour ends under one that was frozen for longer.
const FenceTime = 365 * 24 * time.Hour

// Fenced is a client that is kept from the cluster.
type Fenced struct {
	Addr  string `json:"addr"`  // IP:PORT/NONCE
	Until string `json:"until"` // as the monitors say it
}

// Fence keeps a client, IP:PORT/NONCE, from the cluster, and returns when this
// process knows the map in which that stands: what it writes from then on, no OSD
// takes before it knows it too. A whole host or network is [ErrInvalid]: others
// share it.
//
// Similar to: ceph osd blocklist add.
func (c *Cluster) Fence(ctx context.Context, addr string, keep time.Duration) error {
	address, nonce, ok := strings.Cut(addr, "/")
	if _, _, err := net.SplitHostPort(address); err != nil || !ok || nonce == "" || nonce == "0" {
		return invalid("client address "+addr, "is not of the form IP:PORT/NONCE")
	}
	_, err := c.command(ctx, map[string]any{
		"prefix": "osd blocklist", "blocklistop": "add", "addr": addr,
		"expire": json.Number(strconv.FormatFloat(keep.Seconds(), 'f', 1, 64))}) // 1 is no float to the monitor, 1.0 is
	if err == nil {
		err = c.within(ctx, c.conn.WaitForLatestOSDMap)
	}
	return wrap("fence", addr, err)
}

// MayFence says whether this user may fence anybody. A user who may not cannot
// break the lock of a dead client either, and a guest of theirs finds its disk
// read-only after a power cut. It asks for a fence that no monitor can make.
func (c *Cluster) MayFence(ctx context.Context) (bool, error) {
	_, err := c.command(ctx, map[string]any{"prefix": "osd blocklist", "blocklistop": "add", "addr": "nobody/1"})
	switch {
	case is(err, ErrPermission):
		return false, nil
	case err == nil, is(err, ErrInvalid):
		return true, nil
	}
	return false, wrap("ask for the caps of", "client."+c.user, err)
}

// Unfence lets a client back in. It needs more than `profile rbd`.
//
// Similar to: ceph osd blocklist rm.
func (c *Cluster) Unfence(ctx context.Context, addr string) error {
	_, err := c.command(ctx, map[string]any{"prefix": "osd blocklist", "blocklistop": "rm", "addr": addr})
	return wrap("lift the fence of", addr, err)
}

// Fences lists who is kept from the cluster.
//
// Similar to: ceph osd blocklist ls.
func (c *Cluster) Fences(ctx context.Context) ([]Fenced, error) {
	answer, err := c.command(ctx, map[string]any{"prefix": "osd blocklist ls"})
	if err != nil {
		return nil, wrap("list", "fenced clients", err)
	}
	all := []Fenced{}
	// Two lists, one of clients and one of networks, one after the other.
	for lists := json.NewDecoder(bytes.NewReader(answer)); lists.More(); {
		var list []Fenced
		if err := lists.Decode(&list); err != nil {
			return nil, wrap("list", "fenced clients", err)
		}
		all = append(all, list...)
	}
	return all, nil
}

// command asks the monitors.
func (c *Cluster) command(ctx context.Context, args map[string]any) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	args["format"] = "json"
	text, err := json.Marshal(args)
	if err != nil {
		return nil, err
	}
	answer, _, err := c.conn.MonCommand(text)
	return answer, err
}
