// vmdisk boot's flags for disks besides the root disk

package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/vmdisk/vmdisk"
	"github.com/vmdisk/vmdisk/disk"
)

func diskOptions(c *command, o *vmdisk.BootOptions) (err error) {
	for _, text := range c.StringSlice("ephemeral") {
		size, err := parseSize(text)
		if err != nil {
			return err
		}
		o.Ephemeral = append(o.Ephemeral, size)
	}
	if o.Swap, err = optionalSize(c.String("swap")); err != nil {
		return err
	}
	o.ConfigDrive, err = configDrive(c)
	return err
}

// configDrive reads the files of a config drive; nil if none is named.
func configDrive(c *command) (*disk.ConfigDrive, error) {
	var drive disk.ConfigDrive
	any := false
	for flag, into := range map[string]*[]byte{
		"user-data": &drive.UserData, "meta-data": &drive.MetaData, "network-config": &drive.NetworkConfig,
	} {
		if !c.IsSet(flag) {
			continue
		}
		data, err := readConfig(flag, c.String(flag))
		if err != nil {
			return nil, err
		}
		*into, any = data, true
	}
	if !any {
		return nil, nil
	}
	return &drive, nil
}

// readConfig reads a file, but not a device that has no end.
func readConfig(flag, path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, usagef("--%s %s: %v", flag, path, reason(err))
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, disk.MaxConfigDrive+1))
	switch {
	case errors.Is(err, syscall.EISDIR):
		return nil, usagef("--%s %s: is a directory", flag, path)
	case err != nil:
		return nil, usagef("--%s %s: %v", flag, path, reason(err))
	case len(data) > disk.MaxConfigDrive:
		return nil, usagef("--%s %s: is larger than %s", flag, path, disk.FormatSize(disk.MaxConfigDrive))
	}
	return data, nil
}

// reason is why a file could not be read, without its name.
func reason(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
