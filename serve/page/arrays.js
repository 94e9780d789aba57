// Arrays as {dtype, shape, data}, in C order: places in them, their numbers as text, CSV.

/** How far apart neighbours along each axis lie in `data`. */
export function strides(shape) {
  const steps = new Array(shape.length).fill(1);
  for (let axis = shape.length - 2; axis >= 0; axis -= 1) {
    steps[axis] = steps[axis + 1] * shape[axis + 1];
  }
  return steps;
}

/** The values along `axis` at the place `index` (its entry for `axis` is ignored), as numbers. */
export function lane(array, index, axis) {
  const steps = strides(array.shape);
  let start = 0;
  for (let i = 0; i < index.length; i += 1) if (i !== axis) start += index[i] * steps[i];
  const values = new Array(array.shape[axis]);
  for (let i = 0; i < values.length; i += 1) values[i] = Number(array.data[start + i * steps[axis]]);
  return values;
}

/** The matrix of values along `rowAxis` and `columnAxis` at the place `index`. */
export function plane(array, index, rowAxis, columnAxis) {
  const place = [...index];
  return Array.from({ length: array.shape[rowAxis] }, (_, row) => {
    place[rowAxis] = row;
    return lane(array, place, columnAxis);
  });
}

/** The shortest text that reads back as the same value of the array's dtype. */
export function exact(value, dtype) {
  if (dtype === "bool") return value ? "true" : "false";
  if (dtype !== "float32" || !Number.isFinite(value)) {
    return Number.isNaN(value) ? "nan" : String(value).replace("Infinity", "inf");
  }
  for (let digits = 6; digits < 9; digits += 1) {
    const text = value.toPrecision(digits);
    if (Math.fround(Number(text)) === value) return String(Number(text));
  }
  return String(Number(value.toPrecision(9)));
}

/** A number for people, with this many digits. */
export function short(value, digits = 5) {
  if (!Number.isFinite(value)) return exact(value, "float64");
  return String(Number(value.toPrecision(digits))).replace("-", "−");
}

/** CSV of an array: leading axes as index columns, one column for each place of the last axis. */
export function toCsv(name, axes, array) {
  const wide = array.shape.length > 1;
  const columns = wide ? array.shape.at(-1) : 1;
  const leading = wide ? axes.slice(0, -1) : axes;
  const values = wide
    ? Array.from({ length: columns }, (_, i) => `${axes.at(-1)} ${i}`)
    : [name];
  const lines = [[...leading, ...values].map(quote).join(",")];
  const index = new Array(leading.length).fill(0);
  for (let start = 0; start < array.data.length; start += columns) {
    const row = [...index];
    for (let i = 0; i < columns; i += 1) row.push(exact(array.data[start + i], array.dtype));
    lines.push(row.join(","));
    for (let axis = leading.length - 1; axis >= 0; axis -= 1) {
      index[axis] += 1;
      if (index[axis] < array.shape[axis]) break;
      index[axis] = 0;
    }
  }
  return `${lines.join("\n")}\n`;
}

function quote(text) {
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
