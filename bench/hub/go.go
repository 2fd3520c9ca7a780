// SPDX-License-Identifier: MIT
//
// Go's goroutines, on one thread of the system (GOMAXPROCS is 1). Its package sets TCP_NODELAY, and takes the backlog
// from net.core.somaxconn.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"
)

func serve(c net.Conn) {
	defer c.Close()
	buffer := make([]byte, 1024)
	for {
		got, err := c.Read(buffer)
		if err != nil {
			return
		}
		if _, err = c.Write(buffer[:got]); err != nil {
			return
		}
	}
}

func main() {
	runtime.GOMAXPROCS(1)
	how := net.ListenConfig{KeepAlive: -1} // no calls for options that nobody else has
	listener, err := how.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	for {
		c, err := listener.Accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		go serve(c)
	}
}
