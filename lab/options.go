// What Up is asked for, and whether this machine can give it: programs, rights,
// space and a path short enough for sockets.

package lab

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
)

const (
	defaultCache = "/var/cache/vmdisk-lab"
	maxOSDs      = 8
	defaultHosts = 2
	maxHosts     = 8
	// maxSocket is the longest path of a Unix socket: sun_path less its NUL.
	maxSocket = 107
	// longestSocket is the longest socket name that ceph.conf makes in a lab: a
	// QEMU's, with the longest user name, pid and connection id that there are.
	longestSocket = "/ceph/guests/ceph-client.cinder-backup.4194304.140737488355327.asok"
	// freeSpace is what a lab needs at least, in bytes: the logs, the monitor's
	// database, the guests' images and what tests write.
	freeSpace = 4 << 30
)

// hidden are directories that a host has of its own: a lab inside one would be
// out of its hosts' sight.
var hidden = []string{"/run", "/proc", "/sys", "/dev"}

// programs are what the lab runs, each with the Debian package it is in.
var programs = map[string]string{
	"apt-cache":          "apt",
	"apt-get":            "apt",
	"busybox":            "busybox-static",
	"ceph":               "ceph-common",
	"ceph-mgr":           "ceph-mgr",
	"ceph-mon":           "ceph-mon",
	"ceph-osd":           "ceph-osd",
	"cp":                 "coreutils",
	"dpkg":               "dpkg",
	"gcc":                "gcc",
	"ldd":                "libc-bin",
	"libvirtd":           "libvirt-daemon-system",
	"mcopy":              "mtools",
	"mke2fs":             "e2fsprogs",
	"mkfs.vfat":          "dosfstools",
	"monmaptool":         "ceph-common",
	"mount":              "mount",
	"nsenter":            "util-linux",
	"qemu-img":           "qemu-utils",
	"qemu-system-x86_64": "qemu-system-x86",
	"rados":              "ceph-common",
	"rbd":                "ceph-common",
	"syslinux":           "syslinux",
	"virsh":              "libvirt-clients",
	"virtlogd":           "libvirt-daemon-system",
}

// files are what the lab needs besides programs, as patterns.
var files = map[string]string{
	"/usr/lib/*/qemu/block-rbd.so": "qemu-block-extra",
	"/usr/lib/*/libc.a":            "libc6-dev",
	bootCode:                       "syslinux-common",
}

// complete fills in what was left out and refuses what cannot be.
func (o *Options) complete() error {
	o.OSDs = cmp.Or(o.OSDs, 1)
	o.Hosts = cmp.Or(o.Hosts, defaultHosts)
	o.Store = cmp.Or(o.Store, BlueStore)
	o.Cache = cmp.Or(o.Cache, defaultCache)
	o.Report = oneByOne(o.Report)
	if o.OSDs < 1 || o.OSDs > maxOSDs {
		return fmt.Errorf("lab: %d OSDs asked for: 1 to %d can be had", o.OSDs, maxOSDs)
	}
	if o.Hosts < 1 || o.Hosts > maxHosts {
		return fmt.Errorf("lab: %d hosts asked for: 1 to %d can be had", o.Hosts, maxHosts)
	}
	if o.Store != BlueStore && o.Store != MemStore {
		return fmt.Errorf("lab: store %q is neither %s nor %s", o.Store, BlueStore, MemStore)
	}
	dir, err := realDir(o.Dir)
	if err != nil {
		return err
	}
	o.Dir = dir
	return nil
}

// realDir returns dir as the kernel will name it, and refuses one in which a
// lab cannot live.
func realDir(dir string) (string, error) {
	if dir == "" {
		return "", errors.New("lab: no directory given")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("lab: %w", err)
	}
	dir, err = evalExisting(dir)
	if err != nil {
		return "", fmt.Errorf("lab: %w", err)
	}
	for _, h := range hidden {
		if dir == h || strings.HasPrefix(dir, h+"/") {
			return "", fmt.Errorf("lab: %s: a lab cannot be in %s, its hosts have their own", dir, h)
		}
	}
	if longest := maxSocket - len(longestSocket); len(dir) > longest {
		return "", fmt.Errorf("lab: the path %s has %d bytes: use one of at most %d, for sockets in it may have %d",
			dir, len(dir), longest, maxSocket)
	}
	if strings.ContainsAny(dir, " \t\n\"'\\$,:=#;") {
		return "", fmt.Errorf("lab: the path %q has a character that ceph.conf or QEMU would not take as it is", dir)
	}
	return dir, nil
}

// evalExisting resolves the symbolic links in that part of path which exists.
func evalExisting(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if err == nil || !errors.Is(err, os.ErrNotExist) || path == "/" {
		return real, err
	}
	parent, err := evalExisting(filepath.Dir(path))
	return filepath.Join(parent, filepath.Base(path)), err
}

// preflight says what this machine lacks for any lab.
func preflight() error {
	if os.Geteuid() != 0 {
		return errors.New("lab: root is needed, for mount namespaces and libvirt: run it with sudo")
	}
	return missing()
}

// missing names the programs and files that are not installed, and what to type.
func missing() error {
	var lacking, packages []string
	for name, pkg := range programs {
		if _, err := program(name); err != nil {
			lacking, packages = append(lacking, name), append(packages, pkg)
		}
	}
	for pattern, pkg := range files {
		if found, _ := filepath.Glob(pattern); len(found) == 0 {
			lacking, packages = append(lacking, pattern), append(packages, pkg)
		}
	}
	if len(lacking) == 0 {
		return nil
	}
	slices.Sort(lacking)
	slices.Sort(packages)
	return fmt.Errorf("lab: not installed: %s\n  install it:  apt-get install --no-install-recommends %s",
		strings.Join(lacking, ", "), strings.Join(slices.Compact(packages), " "))
}

// program finds a program, also where a user's PATH may not lead.
func program(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return filepath.Abs(path)
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", err
}

// roomIn refuses a file system without space for a lab.
func roomIn(dir string) error {
	for {
		var fs syscall.Statfs_t
		err := syscall.Statfs(dir, &fs)
		if errors.Is(err, syscall.ENOENT) && dir != "/" {
			dir = filepath.Dir(dir)
			continue
		}
		if err != nil {
			return fmt.Errorf("lab: %s: %w", dir, err)
		}
		if free := fs.Bavail * uint64(fs.Bsize); free < freeSpace {
			return fmt.Errorf("lab: %s has %d MiB free: a lab needs %d MiB", dir, free>>20, freeSpace>>20)
		}
		return nil
	}
}

func silent(string, ...any) {}

// oneByOne lets concurrent steps report without the receiver minding.
func oneByOne(report func(string, ...any)) func(string, ...any) {
	if report == nil {
		return silent
	}
	var mu sync.Mutex
	return func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		report(format, args...)
	}
}
