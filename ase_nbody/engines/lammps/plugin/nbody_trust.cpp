/* ----------------------------------------------------------------------
   Part of ase-nbody: N-body networks (Kondor 2018) in LAMMPS
------------------------------------------------------------------------- */

#include "nbody_trust.h"

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

using namespace LAMMPS_NS;

/* ----------------------------------------------------------------------
   why others may have written a file or folder; empty if they cannot have.
   In a folder with the sticky bit, such as /tmp, nobody can exchange the files of others
------------------------------------------------------------------------- */

static std::string distrust(const std::string &path, const struct stat &status)
{
  if (status.st_uid != 0 && status.st_uid != geteuid())
    return path + " belongs to another user (number " + std::to_string(status.st_uid) +
        "): export the model yourself, because the file holds machine code";
  if (S_ISDIR(status.st_mode) && (status.st_mode & S_ISVTX) && status.st_uid == 0) return "";
  if (status.st_mode & (S_IWGRP | S_IWOTH))
    return "other users may write to " + path + ", which " +
        (S_ISDIR(status.st_mode) ? "holds a file of machine code" : "holds machine code") +
        ": say \"chmod go-w " + path + "\" first, or move the file to a folder of your own";
  return "";
}

/* ---------------------------------------------------------------------- */

static std::string read_from(int file, const std::string &path, const std::string &beginning,
                             std::string &content)
{
  struct stat status;
  if (fstat(file, &status) < 0) return "Cannot read " + path + ": " + strerror(errno);
  if (!S_ISREG(status.st_mode)) return path + " is not a file";
  std::string fault = distrust(path, status);
  if (!fault.empty()) return fault;

  // another file, such as a trajectory, may be larger than the memory: its first bytes tell

  content.resize(std::min((size_t) status.st_size, beginning.size()));
  if (pread(file, &content[0], content.size(), 0) != (ssize_t) content.size() ||
      content != beginning)
    return "";

  content.resize(status.st_size);
  for (size_t place = 0; place < content.size();) {
    const ssize_t got = ::read(file, &content[place], content.size() - place);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return "Cannot read " + path + ": " + strerror(errno);
    if (got == 0) return path + " became shorter while it was read";
    place += got;
  }
  return "";
}

/* ----------------------------------------------------------------------
   what is judged is what is read: the file is looked up in the open descriptor of its folder
------------------------------------------------------------------------- */

std::string NBodyTrust::read(const std::string &given, const std::string &beginning,
                             std::string &content)
{
  char resolved[PATH_MAX];
  if (!realpath(given.c_str(), resolved))
    return "Cannot open model file " + given + ": " + strerror(errno);
  const std::string path(resolved);
  const size_t slash = path.rfind('/');
  const std::string folder = slash == 0 ? "/" : path.substr(0, slash);
  const int place = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (place < 0) return "Cannot open the folder " + folder + ": " + strerror(errno);

  // O_NONBLOCK: a pipe would wait for a writer

  const int file = openat(place, &path[slash + 1], O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  struct stat status;
  std::string fault;
  if (file < 0)
    fault = "Cannot open model file " + path + ": " + strerror(errno);
  else if (fstat(place, &status) < 0)
    fault = "Cannot read " + folder + ": " + strerror(errno);
  else if ((fault = distrust(folder, status)).empty())
    fault = read_from(file, path, beginning, content);
  if (file >= 0) close(file);
  close(place);
  return fault;
}
