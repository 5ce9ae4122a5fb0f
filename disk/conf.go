// What a ceph.conf says, without a cluster.

package disk

import (
	"github.com/ceph/go-ceph/rados"
)

// ReadConf reads the values that options have for a client of a ceph.conf, as
// librados understands it: defaults filled in, $cluster and the like replaced.
// CEPH_ARGS is not asked. A file that is malformed is [ErrInvalid].
//
// Similar to: ceph-conf --show-config-value.
func ReadConf(path, user string, options ...string) (map[string]string, error) {
	conn, err := rados.NewConnWithUser(user)
	if err != nil {
		return nil, wrap("prepare to read", path, err)
	}
	// A connection that was never made has no Shutdown; go-ceph frees it.
	if err := conn.ReadConfigFile(path); err != nil {
		return nil, invalid("ceph.conf "+path, "is malformed: %v", err)
	}
	values := map[string]string{}
	for _, o := range options {
		if values[o], err = conn.GetConfigOption(o); err != nil {
			return nil, wrap("read option "+o+" of", path, err)
		}
	}
	return values, nil
}
