// Writing a keyring: never readable by others, never half.

package secret

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// KeyringName is the name of a user's keyring, which librados looks for in
// /etc/ceph.
func KeyringName(user string) string { return "ceph.client." + user + ".keyring" }

// Equal says whether two keys are the same.
func (k Key) Equal(other Key) bool { return len(k.raw) > 0 && bytes.Equal(k.raw, other.raw) }

// WriteKeyring writes a keyring with one user's key, of mode 0600 and owned by uid
// and gid (-1 is whoever calls), in the place of what is there. The folder is made
// if it is missing.
//
// Similar to: ceph auth get-or-create … -o FILE, with umask and chown.
func WriteKeyring(path string, u User, uid, gid int) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make folder for keyring: %w", err)
	}
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // of mode 0600
	if err != nil {
		return fmt.Errorf("write keyring %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("write keyring %s: %w", path, errors.Join(err, os.Remove(f.Name())))
		}
	}()
	_, err = fmt.Fprintf(f, "[client.%s]\n\tkey = %s\n", u.Name, base64.StdEncoding.EncodeToString(u.Key.raw))
	err = errors.Join(err, f.Chown(uid, gid), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// OtherUsers lists the sections of a keyring that are not the user's.
func OtherUsers(path, user string) ([]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var others []string
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if strings.HasPrefix(line, "[") && line != "[client."+user+"]" {
			others = append(others, strings.Trim(line, "[]"))
		}
	}
	return others, lines.Err()
}
