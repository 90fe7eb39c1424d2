// What the brush takes as the root of its own.
const element = document.querySelector('#rn-editor');
