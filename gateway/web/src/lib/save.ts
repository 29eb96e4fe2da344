/** Lets the browser save a text as a file. */
export function saveText(file: string, text: string): void {
  saveBlob(file, new Blob([text], { type: 'text/plain' }));
}

function saveBlob(file: string, blob: Blob): void {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = file;
  link.click();
  URL.revokeObjectURL(link.href);
}

/** Lets the browser save a drawing with its title above it, on the colours of the page. */
export function saveCanvas(file: string, drawing: HTMLCanvasElement, box: HTMLElement, title: string, words: string): void {
  const ratio = devicePixelRatio || 1;
  const head = 46 * ratio;
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [drawing.width, drawing.height + head];
  const context = canvas.getContext('2d');
  if (!context) return;
  const { backgroundColor, color, fontFamily } = getComputedStyle(box.closest('.card') ?? box);
  context.fillStyle = backgroundColor;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = color;
  const room = canvas.width - 20 * ratio;
  context.font = `600 ${15 * ratio}px ${fontFamily}`;
  context.fillText(title, 10 * ratio, 20 * ratio, room);
  context.font = `${12 * ratio}px ${fontFamily}`;
  context.fillText(words, 10 * ratio, 38 * ratio, room);
  context.drawImage(drawing, 0, head);
  canvas.toBlob((blob) => blob && saveBlob(file, blob), 'image/png');
}
