/* SPDX-License-Identifier: MIT */
/* "httpd_talk PORT [slowly] [end] [deaf]": sends its standard input to a server on this machine, byte by byte or as it is,
   says on request that no more will come, and prints what it gets until the other side has ended too; or reads nothing,
   until it is killed. For t/httpd.sh, which says what curl would not. A server that neither answers nor ends within 20
   seconds is a failure. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void need(int holds, const char* what) {
  if (holds) return;
  perror(what);
  exit(1);
}

int main(int count, char** arguments) {
  static char text[1 << 20];
  struct sockaddr_in where;
  const int s = socket(AF_INET, SOCK_STREAM, 0), on = 1;
  size_t size = 0, step = sizeof text;
  int end = 0, deaf = 0, i;
  ssize_t n;

  signal(SIGPIPE, SIG_IGN);
  for (i = 2; i < count; ++i) {
    if (strcmp(arguments[i], "slowly") == 0) step = 1;
    if (strcmp(arguments[i], "end") == 0) end = 1;
    if (strcmp(arguments[i], "deaf") == 0) deaf = 1;
  }
  while ((n = read(STDIN_FILENO, text + size, sizeof text - size)) > 0) size += (size_t)n;
  memset(&where, 0, sizeof where);
  where.sin_family = AF_INET;
  where.sin_port = htons((unsigned short)atoi(arguments[1]));
  where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  need(connect(s, (struct sockaddr*)&where, sizeof where) == 0, "connect");
  setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  for (size_t at = 0; at < size; at += (size_t)n) {
    n = send(s, text + at, size - at < step ? size - at : step, 0);
    if (n < 0) break; /* it has heard enough; what it has said is still to be read */
  }
  if (end) shutdown(s, SHUT_WR);
  if (deaf) {
    alarm(60);
    for (;;) pause();
  }
  for (;;) {
    struct pollfd p = {s, POLLIN, 0};
    need(poll(&p, 1, 20000) == 1, "no answer in 20 seconds");
    n = read(s, text, sizeof text);
    if (n <= 0) break;
    fwrite(text, 1, (size_t)n, stdout);
    fflush(stdout);
  }
  need(n == 0, "read");
  return 0;
}
