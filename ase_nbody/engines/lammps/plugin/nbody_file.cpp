/* ----------------------------------------------------------------------
   Part of ase-nbody: N-body networks (Kondor 2018) in LAMMPS
------------------------------------------------------------------------- */

#include "nbody_file.h"

#include "nbody_trust.h"

#include <array>
#include <cstdio>
#include <exception>
#include <sstream>
#include <stdexcept>

using namespace LAMMPS_NS;

static constexpr char KIND[] = "nbody.lammps ";
static constexpr char MAGIC[] = "nbody.lammps 1 ";
static constexpr int64_t MAXCHUNK = 1 << 30;    // bytes in one call of MPI_Bcast
static constexpr int LARGEST = 1 << 20;         // number of a level, and axis of a weight
static constexpr double LARGEST_RADIUS = 1e3;

/* ----------------------------------------------------------------------
   the CRC-32 of zlib, which finds accidental damage
------------------------------------------------------------------------- */

static uint32_t crc32(const std::string &text, size_t start)
{
  std::array<uint32_t, 256> table;
  for (uint32_t n = 0; n < table.size(); n++) {
    uint32_t c = n;
    for (int k = 0; k < 8; k++) c = (c & 1) ? 0xedb88320U ^ (c >> 1) : c >> 1;
    table[n] = c;
  }
  uint32_t c = 0xffffffffU;
  for (size_t i = start; i < text.size(); i++)
    c = table[(c ^ (unsigned char) text[i]) & 0xff] ^ (c >> 8);
  return c ^ 0xffffffffU;
}

/* ---------------------------------------------------------------------- */

static void broadcast(std::string &text, MPI_Comm world)
{
  int64_t size = text.size();
  MPI_Bcast(&size, 1, MPI_INT64_T, 0, world);
  text.resize(size);
  for (int64_t first = 0; first < size; first += MAXCHUNK)
    MPI_Bcast(&text[first], (int) std::min(MAXCHUNK, size - first), MPI_CHAR, 0, world);
}

/* ---------------------------------------------------------------------- */

std::string NBodyFile::read(const std::string &path, MPI_Comm world)
{
  int me;
  MPI_Comm_rank(world, &me);

  std::string content, fault;
  if (me == 0) fault = NBodyTrust::read(path, KIND, content);
  broadcast(fault, world);
  if (!fault.empty()) return fault;
  broadcast(content, world);

  // all ranks have the same bytes, so all of them come to the same result

  try {
    fault = parse(content);
  } catch (std::exception &) {
    fault = "its header cannot be understood";
  }
  if (!fault.empty())
    return path + " is not a model file that pair style nbody can read: " + fault +
        ". Write it again with \"nbody lammps export\"";
  return fault;
}

/* ---------------------------------------------------------------------- */

static std::vector<bool> flags(const std::string &digits, size_t n)
{
  if (digits.size() != n) throw std::invalid_argument(digits);
  std::vector<bool> found;
  for (char digit : digits) found.push_back(digit == '1');
  return found;
}

/* ---------------------------------------------------------------------- */

// a radius below 0 would give no forces, a block of nothing would never end, and other numbers
// would be read beyond the ends of tables

static std::string fault_of(const NBodyLevelInfo &level)
{
  auto is_count = [](int number) { return number >= 1 && number <= LARGEST; };
  if (!(level.radius > 0.0 && level.radius <= LARGEST_RADIUS)) return "a level has no radius";
  if (!is_count(level.components) || !is_count(level.channels))
    return "a level has no components or channels";
  if (!is_count(level.block)) return "a level has no parts in a block";
  return "";
}

/* ---------------------------------------------------------------------- */

std::string NBodyFile::parse(const std::string &content)
{
  if (content.rfind(KIND, 0) != 0) return "it is of another kind";
  if (content.rfind(MAGIC, 0) != 0) return "it has another version";

  const size_t start = content.find('\n') + 1;
  char expected[16];
  snprintf(expected, sizeof(expected), "%08x", crc32(content, start));
  if (start == 0 || content.substr(sizeof(MAGIC) - 1, start - sizeof(MAGIC)) != expected)
    return "it is damaged, or it was changed";

  const size_t end = content.find("\nend\n", start);
  if (end == std::string::npos) return "its header has no end";
  size_t place = end + 5;

  std::istringstream header(content.substr(start, end - start));
  std::string line;
  auto take = [&](size_t size) {
    if (size > content.size() - place) throw std::out_of_range("section");
    place += size;
    return content.substr(place - size, size);
  };
  while (std::getline(header, line)) {
    std::istringstream words(line);
    words.exceptions(std::ios::failbit);
    std::string key, name;
    words >> key;
    if (key == "torch") {
      words >> torch;
    } else if (key == "capability") {
      std::getline(words >> std::ws, capability);
    } else if (key == "dtype") {
      words >> dtype;
    } else if (key == "atom") {
      double energy;
      words >> name >> energy;
      species.push_back(name);
      isolated.push_back(energy);
    } else if (key == "level") {
      NBodyLevelInfo level;
      std::string parts, children;
      words >> level.radius >> parts >> children >> level.components >> level.channels >>
          level.block;
      level.parts = flags(parts, species.size());
      level.children = flags(children, species.size());
      const std::string fault = fault_of(level);
      if (!fault.empty()) return fault;
      levels.push_back(level);
    } else if (key == "weight") {
      std::vector<int64_t> shape;
      words.exceptions(std::ios::goodbit);
      for (int64_t size; words >> size;) {
        if (size < 0 || size > LARGEST) return "a weight has no such size";
        shape.push_back(size);
      }
      shapes.push_back(shape);
    } else if (key == "member") {
      size_t size;
      words >> size;
      weights.push_back(take(size));
    } else if (key == "code") {
      size_t size;
      words >> name >> size;
      code[name] = take(size);
    }
  }
  members = (int) weights.size();
  if (members == 0 || levels.empty() || species.empty()) return "its header is not complete";
  if (dtype != "float64" && dtype != "float32") return "its numbers are of an unknown type";
  return "";
}
