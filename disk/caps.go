// What a user may not do, said as the cap that it lacks.

package disk

import (
	"errors"
	"strings"
)

// explainCaps says of a refusal by the OSDs which cap the user lacks. Ceph itself
// only says "Operation not permitted".
func (c *Cluster) explainCaps(err error, pools ...string) error {
	var e *Error
	if errors.As(err, &e) && e.Kind == ErrPermission && e.Reason == "" {
		var caps []string
		for _, pool := range pools {
			caps = append(caps, "profile rbd pool="+pool)
		}
		e.Reason = "client." + c.user + " lacks the cap osd '" + strings.Join(caps, ", ") + "'"
	}
	return err
}
