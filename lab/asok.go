// Asking a Ceph daemon over its admin socket: it answers in a millisecond where
// the ceph command takes half a second.

package lab

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"time"
)

// askTimeout is how long a daemon may take to answer: a frozen one never does.
const askTimeout = 2 * time.Second

// command is a request to a daemon: its "prefix" and its arguments.
type command map[string]any

// ask sends a command to an admin socket and decodes the answer. The request is
// JSON ended by a NUL; the answer is its length, big-endian, and that many
// bytes of JSON. Similar to: ceph --admin-daemon SOCKET COMMAND.
func ask(ctx context.Context, socket string, c command, answer any) error {
	request, err := json.Marshal(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := conn.Write(append(request, 0)); err != nil {
		return err
	}
	var size uint32
	if err := binary.Read(conn, binary.BigEndian, &size); err != nil {
		return fmt.Errorf("%s: %s: %w", socket, request, err)
	}
	b, err := io.ReadAll(io.LimitReader(conn, int64(size)))
	if err != nil {
		return fmt.Errorf("%s: %s: %w", socket, request, err)
	}
	if err := json.Unmarshal(b, answer); err != nil {
		return fmt.Errorf("%s: %s: %w", socket, request, err)
	}
	return nil
}
