// Calls into librbd that are left to themselves: they cannot be interrupted, and may
// take hours. The connection stays until the last of them returns.

package disk

// leave runs f, which uses the connection and may outlive the Cluster.
func (c *Cluster) leave(f func() error) <-chan error {
	c.workMu.Lock()
	c.calls++
	c.workMu.Unlock()
	done := make(chan error, 1)
	go func() {
		done <- f()
		c.workMu.Lock()
		c.calls--
		last := c.calls == 0 && c.closed
		c.workMu.Unlock()
		if last {
			c.conn.Shutdown()
		}
	}()
	return done
}

// shutdown ends the connection, unless somebody who will do that uses it.
func (c *Cluster) shutdown() {
	c.workMu.Lock()
	c.closed = true
	last := c.calls == 0
	c.workMu.Unlock()
	if last {
		c.conn.Shutdown()
	}
}
