/* ----------------------------------------------------------------------
   Part of ase-nbody: N-body networks (Kondor 2018) in LAMMPS
------------------------------------------------------------------------- */

#include "nbody_network.h"

#include <algorithm>
#include <stdexcept>

using namespace LAMMPS_NS;

/* ---------------------------------------------------------------------- */

static std::unique_ptr<NBodyCode> load(const NBodyFile &file, const std::string &name)
{
  const auto found = file.code.find(name);
  if (found == file.code.end()) throw std::runtime_error("there is none for step " + name);
  return std::unique_ptr<NBodyCode>(new NBodyCode(found->second));
}

/* ---------------------------------------------------------------------- */

NBodyNetwork::NBodyNetwork(NBodyFile &&file) :
    members(file.members), nlevels((int) file.levels.size()),
    is_double(file.dtype == "float64"), cutoff(0.0), species(std::move(file.species)),
    isolated(std::move(file.isolated)), levels(std::move(file.levels)),
    shapes(std::move(file.shapes)), weights(std::move(file.weights))
{
  for (const auto &level : levels) cutoff = std::max(cutoff, level.radius);
  for (int n = 0; n < nlevels; n++) {
    if (n < nlevels - 1) code_up.push_back(load(file, "up-" + std::to_string(n)));
    code_down.push_back(load(file, "down-" + std::to_string(n)));
  }

  size_t size = 0;
  for (const auto &shape : shapes) {
    size_t numbers = 1;
    for (int64_t length : shape) numbers *= length;
    size += numbers * (is_double ? sizeof(double) : sizeof(float));
  }
  for (const auto &one : weights)
    if (one.size() != size) throw std::runtime_error("the weights have another size");
}

/* ---------------------------------------------------------------------- */

void NBodyNetwork::give(NBodyArguments &given, int member, int n, const NBodyBlock &block,
                        const NBodyStates *below)
{
  const char *weight = weights[member].data();
  for (const auto &shape : shapes) {
    given.real(weight, shape);
    size_t numbers = 1;
    for (int64_t length : shape) numbers *= length;
    weight += numbers * (is_double ? sizeof(double) : sizeof(float));
  }
  if (n == 0) {
    block.arguments(given);
  } else {
    below->gather(block.rows.data(), block.nrows, rows);
    block.arguments(given, levels[n - 1], rows);
  }
}

/* ---------------------------------------------------------------------- */

NBodyResult NBodyNetwork::up(int member, int n, const NBodyBlock &block, const NBodyStates *below)
{
  NBodyArguments given(is_double);
  give(given, member, n, block, below);
  return std::move((*code_up[n])(given)[0]);
}

/* ---------------------------------------------------------------------- */

std::vector<NBodyResult> NBodyNetwork::down(int member, int n, const NBodyBlock &block,
                                            const NBodyStates *below, const NBodyStates *slopes,
                                            const std::vector<int> &sloperows)
{
  NBodyArguments given(is_double);
  give(given, member, n, block, below);
  if (slopes) {
    slopes->gather(sloperows.data(), block.nparts, slope);
    given.real(slope.data(), {levels[n].components, block.nparts, levels[n].channels});
  }
  return (*code_down[n])(given);
}

/* ---------------------------------------------------------------------- */

double NBodyNetwork::memory_usage() const
{
  double bytes = (double) rows.capacity() + (double) slope.capacity();
  for (const auto &one : weights) bytes += (double) one.size();
  return bytes;
}
